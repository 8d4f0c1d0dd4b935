"""find_shards: the tars of a folder, a single tar, or a brace pattern as in webdataset."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from skipless.data.folder import is_image
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError

SPLITS = ("train", "val", "validation")  # names of folders with shards
_WORD = re.compile(r"(?<![a-z])(train|val)(?:ing|id|idation)?(?![a-z])")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
_MAX_SHARDS = 1_000_000  # a typo in a range should not fill the memory


@dataclass(frozen=True, repr=False)
class Shards(Record):
    """The tars of a set.

    Attributes:
        named: folder, tar or pattern, as given by the user.
        root: the folder that contains all tars.
        files: paths of the tars, in order.
    """

    named: str
    root: Path
    files: tuple[Path, ...]

    def _summary(self) -> str:
        return f"{counted(len(self.files), 'tar')}, {self.named}"

    def split(self, split: Literal["train", "val"]) -> "Shards":
        """Return the tars with `train` or `val` (or `validation`) in their name, or else in their folder's name."""
        return Shards(self.named, self.root, tuple(file for file in self.files if split_of(file) == split))


def find_shards(named: str) -> Shards | None:
    """Find the tars of a folder or pattern; None if there are none.

    What exists by its name is no pattern, such as a folder `{raw}` or the folders that a pattern begins with.

    Args:
        named: a pattern such as `imagenet-{train-{000000..001281},val-{000000..000049}}.tar`, a tar, or a folder with
            tars in it or in its folders `train` and `val`.

    Raises:
        InputError: if a tar of a pattern is missing, or the tars of a folder are compressed.

    Example:
        >>> find_shards("digits") is None
        True
    """
    path = Path(named).expanduser()
    if not os.path.exists(path) and re.search(r"\{.*\}", named):
        files = _expanded(str(path), named)
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"{named!r} names {len(files)} shards and {len(missing)} are missing, {str(missing[0])!r} first; "
                "fetch them, or name those that are there"
            )
        return Shards(named, _common(files), tuple(files))
    if path.name.lower().endswith((".tar", *_COMPRESSED)) and path.is_file():
        return Shards(named, path.parent, (path,))
    return _in_folder(named, path) if path.is_dir() else None


def _in_folder(named: str, folder: Path) -> Shards | None:
    """Return the tars of a folder; None if it has folders of classes, beside which ImageNet's own tars often lie."""
    places = [folder, *(folder / name for name in SPLITS if (folder / name).is_dir())]
    if any(entry.is_dir() for place in places[1:] for entry in place.iterdir()):
        return None
    files = [file for place in places for file in sorted(place.iterdir()) if _is_file(file, (".tar",))]
    if files:
        return Shards(named, folder, tuple(files))
    compressed = [file for place in places for file in sorted(place.iterdir()) if _is_file(file, _COMPRESSED)]
    if compressed:
        raise InputError(
            f"{str(compressed[0])!r} is a compressed tar, and images are read from any place of a shard: unpack it "
            "to a .tar once, its images are compressed already"
        )
    return None


def _is_file(file: Path, endings: tuple[str, ...]) -> bool:
    return is_image(file.name, endings) and file.is_file()


def _expanded(path: str, named: str) -> list[Path]:
    """Expand the part of a path behind the folders that exist."""
    known, rest = "", path
    while True:
        folder, slash, behind = rest.partition(os.sep)
        if not slash or not os.path.isdir(known + folder + slash):  # a Path raises where a name is too long
            break
        known, rest = known + folder + slash, behind
    return [Path(known + name) for name in expand_braces(rest, named)]


def expand_braces(pattern: str, named: str | None = None) -> list[str]:
    """Expand `{000..123}` and `{a,b}`, nested or not, as a shell does; errors quote `named`, by default the pattern.

    Raises:
        InputError: if a brace is not closed, or there would be more than a million names.

    Example:
        >>> expand_braces("{train-{08..10},val-0}.tar")
        ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-0.tar']
    """
    named = pattern if named is None else named
    parts: list[list[str]] = []
    start = 0
    while (opening := pattern.find("{", start)) >= 0:
        closing = _closing(pattern, opening, named)
        parts += [[pattern[start:opening]], _alternatives(pattern[opening + 1 : closing], named)]
        start = closing + 1
    count = 1
    for part in parts:
        count *= len(part)
    if count > _MAX_SHARDS:
        raise InputError(f"{named!r} names {count} shards; give at most {_MAX_SHARDS}")
    return ["".join(names) for names in product(*parts, [pattern[start:]])]


def _closing(pattern: str, opening: int, named: str) -> int:
    depth = 0
    for position in range(opening, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[position], 0)
        if depth == 0:
            return position
    raise InputError(f"a brace of {named!r} is not closed; write for instance 'train-{{000000..000123}}.tar'")


def _alternatives(inner: str, named: str) -> list[str]:
    if found := _RANGE.fullmatch(inner):
        low, high = int(found[1]), int(found[2])
        if abs(high - low) >= _MAX_SHARDS:
            raise InputError(f"{named!r} names {abs(high - low) + 1} shards; give at most {_MAX_SHARDS}")
        width = max(map(len, found.groups())) if any(text.startswith("0") for text in found.groups()) else 0
        return [f"{number:0{width}}" for number in range(low, high + 1) or range(low, high - 1, -1)]
    choices, depth = [""], 0
    for letter in inner:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            choices.append("")
        else:
            choices[-1] += letter
    if len(choices) == 1:
        raise InputError(
            f"'{{{inner}}}' of {named!r} is neither a range 000..123 nor a list a,b, nor is there such a folder; write "
            "one of them"
        )
    return [name for choice in choices for name in expand_braces(choice, named)]


def split_of(file: Path) -> Literal["train", "val"] | None:
    """The split that a file's name tells, or else its folder's: `c4-train.00000.json.gz`, `validation/part.parquet`."""
    for name in (file.name, file.parent.name):
        if found := _WORD.search(name.lower()):
            return "train" if found[1] == "train" else "val"
    return None


def _common(files: Sequence[Path]) -> Path:
    root = files[0].parent
    while any(root not in file.parents for file in files):
        root = root.parent
    return root
