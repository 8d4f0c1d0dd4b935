"""TextSource: the files that a name, a folder or a pattern stands for, and what each is for."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skipless.data.shards.find import expand_braces, split_of
from skipless.data.text.builtin import BUILTIN
from skipless.data.text.config import TextConfig
from skipless.data.text.documents import ENDINGS, Document, Form, Parts, form_of, read_documents
from skipless.errors import InputError, did_you_mean

Split = Literal["train", "val"]

_ASIDE = frozenset({  # JSON that lies beside text and is none
    *("config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "generation_config.json"),
    *("special_tokens_map.json", "state.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
})  # fmt: skip


@dataclass(frozen=True)
class TextFile:
    """A file of documents.

    Attributes:
        file: its path.
        form: what is in it.
        split: which split its documents belong to; None leaves it to a hash of each.
        builtin: name of the built-in text that it holds; None for any other file.
    """

    file: Path
    form: Form
    split: Split | None = None
    builtin: str | None = None


@dataclass(frozen=True)
class TextSource:
    """The files of a text, in the order in which they are read.

    Attributes:
        named: as given.
        files: what is read.
        field: name of the field with the text.
        parts: what a document is in plain text.
    """

    named: str
    files: tuple[TextFile, ...]
    field: str
    parts: Parts

    def read(self, index: int) -> Iterator[Document]:
        """Yield the documents of one file."""
        file = self.files[index]
        if file.builtin is not None:
            return BUILTIN[file.builtin][1](file.file)
        return read_documents(file.file, file.form, field=self.field, parts=self.parts)

    def states(self) -> list[list[str | int | None]]:
        """Path, size, time of change and split of each file: equal ones stand for equal text."""
        stats = [(file, file.file.stat()) for file in self.files]
        return [[str(file.file.resolve()), stat.st_size, stat.st_mtime_ns, file.split] for file, stat in stats]


def split_by_hash(content: bytes, validation: float) -> Split:
    """The split of a document, a function of its text alone: two of the same text are never in both splits.

    Args:
        content: its text in UTF-8.
        validation: share that is held out.
    """
    drawn = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return "val" if drawn < validation * 2**64 else "train"


def find_text(config: TextConfig) -> TextSource:
    """Find the files of a config.

    Raises:
        InputError: if there are none.

    Example:
        >>> [file.file.name for file in find_text(TextConfig("pydoc")).files]
        ['topics.py']
    """
    if config.data in BUILTIN:
        files = (TextFile(BUILTIN[config.data][0](), "text", builtin=config.data),)
        return TextSource(config.data, files, config.field, "file")
    paths = _files(config.data)
    forms: list[tuple[Path, Form]] = [(file, form_of(file) or "text") for file in paths]
    plain = sum(form == "text" for _, form in forms)
    parts: Parts = ("paragraph" if plain == 1 else "file") if config.documents == "auto" else config.documents
    splits = _splits(paths)
    files = tuple(TextFile(file, form, splits[file]) for file, form in forms if file in splits)
    return TextSource(config.data, files, config.field, parts)


def _files(named: str) -> list[Path]:
    path = Path(named).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return [path]
    patterns = expand_braces(str(path), named) if "{" in named else [str(path)]
    found = [Path(name) for pattern in patterns for name in sorted(glob.glob(pattern)) or [pattern]]
    missing = [file for file in found if not file.is_file()]
    if missing:
        near = did_you_mean(named, BUILTIN)
        more = f" ({len(missing)} of {len(found)} files are missing, {str(missing[0])!r} first)" if found[1:] else ""
        raise InputError(
            f"no text {named!r}: {near}neither {' nor '.join(BUILTIN)}, nor a file, folder or pattern that exists{more}"
        )
    return found


def _in_folder(folder: Path) -> list[Path]:
    """The files of the first form that lies in a folder or below; where `datasets` has saved, those that it lists."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        listed = _listed(Path(place))
        inside = sorted(names) if listed is None else listed
        files += [Path(place) / name for name in inside if not name.startswith(".") and name not in _ASIDE]
    for form in ENDINGS:
        if found := [file for file in files if form_of(file) == form]:
            return found
    known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
    raise InputError(f"no text in {str(folder)!r} (looked for {known}); unpack or rename what is there")


def _listed(folder: Path) -> list[str] | None:
    """The Arrow files of a data set that `datasets` has saved, in its order; others there are its caches."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _splits(files: Sequence[Path]) -> dict[Path, Split | None]:
    """What each file is for; one that is for neither of two splits that are named is left out."""
    named = {file: split_of(file) for file in files}
    there = set(named.values())
    if "val" in there and there - {"val"}:  # without files named for training, all others are for it
        training = "train" if "train" in there else None
        return {file: "val" if name == "val" else "train" for file, name in named.items() if name in ("val", training)}
    return {file: None for file, name in named.items() if "train" not in there or name == "train"}
