"""Preparation: documents in, token files out, with a journal of how far it has come."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from skipless.data.text.documents import Document
from skipless.data.text.prepared import FORMAT, RECORD
from skipless.data.text.source import Split, TextSource, split_by_hash
from skipless.data.text.split_writer import SplitWriter
from skipless.data.text.tokenizer import FileTokenizer, Tokenizer
from skipless.errors import InputError

PARTIAL = ".partial"
JOURNAL = "journal.json"
SPLITS: tuple[Split, ...] = ("train", "val")
JOURNAL_BYTES = 2**26  # of text between two entries: a minute of work is done again at most
Writers = Mapping[Split, SplitWriter]
_BATCH_DOCUMENTS, _BATCH_LETTERS = 1024, 2**22


@dataclass(frozen=True)
class Preparation:
    """The tokens of a source, written to a folder.

    Attributes:
        source: what is read.
        tokenizer: what it is tokenised by.
        validation: share of the documents that is held out, where files do not say.
        folder: where it is written.
        asked: what decides the result; a journal of anything else is of no use.
    """

    source: TextSource
    tokenizer: Tokenizer
    validation: float
    folder: Path
    asked: Mapping[str, Any]

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Write token files and `text.json`; go on where a killed preparation was."""
        if (self.folder / RECORD).is_file() and self._journal() is not None:
            return
        state = self._reached()
        self.folder.mkdir(exist_ok=True)
        writers: Writers = {name: SplitWriter(self.folder / name, self.dtype, self.tokenizer.end) for name in SPLITS}
        try:
            for name, writer in writers.items():
                writer.open(*state.written.get(name, (0, 0)))
            for index in range(state.file, len(self.source.files)):
                progress(index, len(self.source.files))
                self._add_file(index, state, writers)
            self._save(state, writers)
        finally:
            for writer in writers.values():
                writer.close()
        progress(len(self.source.files), len(self.source.files))
        self._finish(state, writers)

    @property
    def dtype(self) -> str:
        """The type of the ids on the disk."""
        return "uint16" if self.tokenizer.vocabulary <= 2**16 else "uint32"

    def _add_file(self, index: int, state: "_State", writers: Writers) -> None:
        split = self.source.files[index].split
        documents = islice(self.source.read(index), state.record, None)
        for batch in _batches(documents):
            state.record += len(batch)
            texts = [document for document in batch if document.text.strip()]
            pieces = self.tokenizer.encode([document.text for document in texts])
            kept = [(one, ids) for one, ids in zip(texts, pieces, strict=True) if len(ids)]
            state.note_empty(batch, {document.place for document, _ in kept})
            for document, ids in kept:
                content = document.text.encode()
                writers[split or split_by_hash(content, self.validation)].add(ids, len(content))
                state.unsaved += len(content)
                if self.tokenizer.unknown is not None:
                    state.unknown += int((ids == self.tokenizer.unknown).sum())
            if state.unsaved >= JOURNAL_BYTES:
                self._save(state, writers)
        state.file, state.record = index + 1, 0

    def _journal(self) -> "_State | None":
        """What a preparation of the same text has written; None if there is nothing to go on from."""
        try:
            held = json.loads((self.folder / JOURNAL).read_text(encoding="utf-8"))
            if held.pop("asked") != json.loads(json.dumps(self.asked)):
                return None
            written: Any = {name: (tokens, documents) for name, (tokens, documents) in held.pop("written").items()}
            return _State(**held, written=written)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _reached(self) -> "_State":
        """Where to go on: at the start, unless everything that the journal tells of is there."""
        state = self._journal()
        if state is None:
            return _State()
        there = [SplitWriter(self.folder / name, self.dtype, 0).holds(*state.written[name]) for name in state.written]
        return state if all(there) else _State()

    def _save(self, state: "_State", writers: Writers) -> None:
        """Note how far it has come, once all of that is on the disk."""
        state.written = {name: writer.sync() for name, writer in writers.items()}
        state.unsaved = 0
        _write_json(self.folder / JOURNAL, {"asked": self.asked, **vars(state)})

    def _finish(self, state: "_State", writers: Writers) -> None:
        splits: dict[Split, dict[str, Any]] = {name: writer.finish() for name, writer in writers.items()}
        for name, about in splits.items():
            if not about["documents"]:
                raise self._no_documents(name, splits)
        record = {
            "format": FORMAT,
            "source": self.source.named,
            "dtype": self.dtype,
            "tokenizer": _about_tokenizer(self.tokenizer),
            "splits": splits,
            "empty": state.empty,
            "first_empty": state.first_empty,
            "unknown": state.unknown,
            "asked": self.asked,
        }
        _write_json(self.folder / RECORD, record)

    def _no_documents(self, name: str, splits: Mapping[Split, Mapping[str, Any]]) -> InputError:
        found = sum(about["documents"] for about in splits.values())
        if not found:
            return InputError(f"{self.source.named!r} has no text in any of its documents; give files with text")
        kind = {"train": "training", "val": "validation"}[name]
        return InputError(
            f"none of the {found} documents of {self.source.named!r} is for {kind} (validation {self.validation:g}): "
            "give another share, or --documents paragraph or line, or name files train-* and val-*"
        )


@dataclass
class _State:
    """How far a preparation has come.

    Attributes:
        file: index of the file that is being read.
        record: documents of it that have been read.
        written: tokens and documents of each split.
        empty: documents left out.
        first_empty: where the first of them is.
        unknown: tokens for what cannot be expressed.
        unsaved: bytes of text since the last entry of the journal.
    """

    file: int = 0
    record: int = 0
    written: dict[Split, tuple[int, int]] = field(default_factory=dict)
    empty: int = 0
    first_empty: str | None = None
    unknown: int = 0
    unsaved: int = 0

    def note_empty(self, batch: list[Document], kept: set[str]) -> None:
        """Count the documents of a batch that were left out."""
        empty = [document.place for document in batch if document.place not in kept]
        self.empty += len(empty)
        if empty and self.first_empty is None:
            self.first_empty = empty[0]


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents that are tokenised together."""
    batch: list[Document] = []
    letters = 0
    for document in documents:
        batch.append(document)
        letters += len(document.text)
        if len(batch) >= _BATCH_DOCUMENTS or letters >= _BATCH_LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def _about_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    end = tokenizer.end_token if isinstance(tokenizer, FileTokenizer) else None
    about = {"name": tokenizer.name, "sha256": tokenizer.sha256, "vocabulary": tokenizer.vocabulary}
    return {**about, "end": tokenizer.end, "end_token": end}


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}")
    with temporary.open("w", encoding="utf-8") as opened:
        json.dump(values, opened, indent=1)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(temporary, file)
