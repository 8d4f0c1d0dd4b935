"""TextData: prepared text, memory-mapped, and what is known of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from skipless.data.text.tokenizer import BYTES, ByteTokenizer, FileTokenizer, Tokenizer
from skipless.display import Record, Table
from skipless.errors import InputError

FORMAT = 1
RECORD, TOKENS, DOCUMENTS, BYTE_COUNTS = "text.json", "tokens.bin", "documents.npy", "bytes.npy"


@dataclass(frozen=True, eq=False, repr=False)
class TextSplit(Record):
    """The tokens of a split, a stream that starts with an end of document and has one after each document.

    Attributes:
        folder: with `tokens.bin`, the ids; `documents.npy`, where each document begins in them, and where the last
            ends; and `bytes.npy`, the bytes of each document's text.
        dtype: of the ids: uint16 up to 65,536 of them, else uint32.
        documents: number of documents.
        tokens: number of ids, the ends of documents included.
        bytes: bytes of the documents' text in UTF-8, as it was before it was tokenised.
        unigram_entropy: entropy of the ids, in nats a token: the loss of a model that knows nothing but their
            frequencies.
        sha256: hash of the ids.
    """

    folder: Path
    dtype: str
    documents: int
    tokens: int
    bytes: int
    unigram_entropy: float
    sha256: str

    def _summary(self) -> str:
        return f"{self.documents:,} documents, {self.tokens:,} tokens, {self.bytes:,} bytes of text"

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text for each token that a model predicts, ends of documents among them."""
        return self.bytes / max(self.tokens - 1, 1)

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids, mapped from the disk."""
        file = self.folder / TOKENS
        size = file.stat().st_size if file.is_file() else 0
        if size != self.tokens * np.dtype(self.dtype).itemsize:
            raise InputError(f"{str(file)!r} is cut off: {size} bytes for {self.tokens} tokens; prepare the text again")
        return np.memmap(file, dtype=self.dtype, mode="r")

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each document begins in `ids`, and where the end of the last one would be followed by another."""
        return self._array(DOCUMENTS)

    @cached_property
    def byte_counts(self) -> np.ndarray:
        """Bytes of each document's text."""
        return self._array(BYTE_COUNTS)

    def document(self, index: int) -> np.ndarray:
        """The ids of a document, without its end."""
        return self.ids[self.starts[index] : self.starts[index + 1] - 1]

    def _array(self, name: str) -> np.ndarray:
        try:
            return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{str(self.folder / name)!r} cannot be read ({error}); prepare the text again") from error

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process is made of: it maps the files anew."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}


@dataclass(frozen=True, eq=False, repr=False)
class TextData(Record):
    """Prepared text.

    Attributes:
        folder: where it lies.
        source: what it was prepared from, as given.
        train: what is trained on.
        val: what is held out.
        vocabulary: number of ids of the tokenizer.
        end: id of the end of a document.
        empty: number of documents without text, which were left out.
        unknown: number of tokens that stand for what the tokenizer cannot express.
        about: contents of `text.json`.
    """

    folder: Path
    source: str
    train: TextSplit
    val: TextSplit
    vocabulary: int
    end: int
    empty: int = 0
    unknown: int = 0
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def _summary(self) -> str:
        tokens, size = self.train.tokens + self.val.tokens, self.train.bytes + self.val.bytes
        return f"{self.source}, {tokens:,} tokens of {self.vocabulary:,} kinds, {size:,} bytes"

    def tables(self) -> tuple[Table, ...]:
        """A row for each split."""
        rows = [
            (
                name,
                f"{split.documents:,}",
                f"{split.tokens:,}",
                f"{split.bytes:,}",
                f"{split.bytes_per_token:.3f}",
                f"{split.unigram_entropy:.3f}",
            )
            for name, split in (("training", self.train), ("validation", self.val))
        ]
        head = ("split", "documents", "tokens", "bytes of text", "bytes a token", "unigram entropy, nats")
        return (Table(head, rows, f"{self.source}, vocabulary {self.vocabulary:,}", self._notes(), align="lrrrrr"),)

    def _notes(self) -> list[str]:
        notes = []
        if self.empty:
            notes.append(f"{self.empty:,} documents without text were left out, {self.about.get('first_empty')} first")
        if self.unknown:
            notes.append(
                f"! {self.unknown:,} tokens stand for what the tokenizer cannot express: bits per byte are too low"
            )
        return notes

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the ids."""
        if self.about["tokenizer"]["name"] == BYTES:
            return ByteTokenizer()
        return FileTokenizer(self.folder / "tokenizer.json", self.about["tokenizer"]["end_token"])

    @property
    def identity(self) -> dict[str, Any]:
        """What a run that goes on must find again: tokens of both splits, and the tokenizer."""
        found = {"tokenizer": self.about.get("tokenizer", {}).get("sha256")}
        return {**found, "train": self.train.sha256, "val": self.val.sha256}


def open_text(folder: Path | str) -> TextData:
    """Open text that `prepare_text` or `skipless data text` has written.

    Raises:
        InputError: if there is none, or it is damaged or was written by another version.
    """
    folder = Path(folder).expanduser()
    about = read_record(folder)
    if about is None:
        raise InputError(f"{str(folder)!r} holds no prepared text ({RECORD}); make it by `skipless data text --out`")
    try:
        if about["format"] != FORMAT:
            raise InputError(f"{str(folder)!r} is of format {about['format']}, not {FORMAT}; prepare the text again")
        splits = {name: TextSplit(folder / name, about["dtype"], **about["splits"][name]) for name in ("train", "val")}
        tokenizer = about["tokenizer"]
        return TextData(
            folder, about["source"], splits["train"], splits["val"], tokenizer["vocabulary"], tokenizer["end"],
            about["empty"], about["unknown"], about,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{str(folder / RECORD)!r} is damaged ({error} is not as expected); prepare the text again"
        ) from error


def read_record(folder: Path) -> Any:
    """The contents of `text.json`; None if there is none.

    Raises:
        InputError: if it is no JSON.
    """
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(folder / RECORD)!r} is damaged ({error}); remove it and prepare the text again"
        ) from error
