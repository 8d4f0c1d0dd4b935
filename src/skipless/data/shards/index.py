"""Index of the samples in shards, built once from headers and labels, and stored beside the shards."""

import fcntl
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from skipless.data.builtin import cache_folder
from skipless.data.decoding import decode_text
from skipless.data.folder import EXTENSIONS
from skipless.data.shards.find import Shards
from skipless.data.shards.shard_files import ShardFiles
from skipless.data.shards.tar import Member, tar_members
from skipless.errors import InputError

_VERSION = 2  # version of the index file; a file of another version is not read
_READERS = 16  # threads, which mostly wait for a network disk
_ANNOUNCED_FROM = 100  # number of shards from which indexing is announced to the user
_NO_LABEL = -1
_HIGHEST_LABEL = 2**31 - 1  # numpy could not hold a far higher one
_LABEL_KEYS = ("label", "cls")  # keys in a .json; the published ImageNet shards have the first


class _Sample(NamedTuple):
    image: Member
    label: int


def index_shards(shards: Shards, *, labelled: bool = True) -> tuple[ShardFiles, Int64[Tensor, " n"]]:
    """Find the images in shards and their labels, from an index file if there is a valid one.

    The index file lies beside the shards, or in the cache folder if the shards' folder is not writable. It is valid as
    long as the size and the modification time of every shard are unchanged.

    Args:
        shards: the tars.
        labelled: whether every image must have a label.

    Raises:
        InputError: if a shard is damaged, has no image, or has a sample without an image; the message names it.
    """
    tars = tuple(str(file.relative_to(shards.root)) for file in shards.files)
    table = _load_or_build(shards, tars)
    unlabelled = np.flatnonzero(table["label"] == _NO_LABEL) if labelled else []
    source = ShardFiles(shards.root, tars, table["files"], table["tar"], table["offset"], table["size"])
    if len(unlabelled):
        raise InputError(
            f"{source.name(int(unlabelled[0]))!r} and {len(unlabelled) - 1} more images have no label; write a "
            ".cls with a whole number, or a .json with 'label', beside each"
        )
    return source, torch.from_numpy(table["label"])


def _load_or_build(shards: Shards, tars: tuple[str, ...]) -> dict[str, np.ndarray]:
    stats = [file.stat() for file in shards.files]
    state = {
        "version": np.array([_VERSION]),
        "bytes": np.array([stat.st_size for stat in stats]),
        "changed": np.array([stat.st_mtime_ns for stat in stats]),
    }
    places = _index_paths(shards, tars)
    for place in places:
        if (table := _load_index(place, state)) is not None:
            return table
    place = next((place for place in places if _writable(place.parent)), None)
    if place is None:
        return _build(shards)
    with _locked(place):  # the processes of a run start together, and only one of them should build it
        if (table := _load_index(place, state)) is None:
            table = _build(shards)
            _save_index(place, table | state)
    return table


def _index_paths(shards: Shards, tars: tuple[str, ...]) -> tuple[Path, Path]:
    def digest(texts: tuple[str, ...]) -> str:
        return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    absolute = digest(tuple(str(file.resolve()) for file in shards.files))
    return shards.root / f".skipless-{digest(tars)}.npz", cache_folder() / "shards" / f"{absolute}.npz"


def _writable(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    lock = place.with_suffix(".lock")
    with ExitStack() as stack:
        with suppress(OSError):  # on a full disk, or one without locks, each process builds the index
            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _load_index(place: Path, state: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Read an index file; None if it is out of date or unreadable."""
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if all(np.array_equal(stored[name], value) for name, value in state.items()):
                return {name: stored[name] for name in ("files", "tar", "offset", "size", "label")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    return None


def _save_index(place: Path, arrays: dict[str, Any]) -> None:
    temporary = place.with_name(f".{place.stem}-{os.getpid()}.npz")
    with suppress(OSError):  # an index that cannot be saved only costs time at the next start
        try:
            np.savez(temporary, **arrays)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


def _build(shards: Shards) -> dict[str, np.ndarray]:
    if len(shards.files) >= _ANNOUNCED_FROM:
        print(f"finding the images in {len(shards.files)} shards of {shards.root} (once)", file=sys.stderr)
    with ThreadPoolExecutor(min(_READERS, len(shards.files))) as pool:
        found = list(pool.map(_samples, shards.files))
    samples = [sample for part in found for sample in part]
    return {
        "files": np.array([os.fsencode(sample.image.name) for sample in samples], dtype=np.bytes_),
        "tar": np.repeat(np.arange(len(found)), [len(part) for part in found]),
        "offset": np.array([sample.image.offset for sample in samples]),
        "size": np.array([sample.image.size for sample in samples]),
        "label": np.array([sample.label for sample in samples]),
    }


def _samples(tar: Path) -> list[_Sample]:
    """Group a tar's members into samples as webdataset does: their key is the path up to the name's first dot."""
    parts: dict[str, dict[str, Member]] = {}
    for member in tar_members(tar):
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        hidden = not stem or any(part.startswith(".") for part in folder.split("/") if part.strip("."))
        if hidden or (stem.startswith("__") and stem.endswith("__")):  # the latter are about the whole shard
            continue
        kinds, kind = parts.setdefault(folder + slash + stem, {}), extension.lower()
        kind = "image" if f".{kind}" in EXTENSIONS else kind
        if kind in kinds:
            raise InputError(
                f"the shard {str(tar)!r} has {kinds[kind].name!r} and {member.name!r} under one key; write it again "
                "with a key for each sample"
            )
        kinds[kind] = member
    if not any("image" in kinds for kinds in parts.values()):
        names = ", ".join(sorted({f".{kind}" for kinds in parts.values() for kind in kinds})[:5]) or "nothing"
        raise InputError(f"the shard {str(tar)!r} has no image: it holds {names}; give shards with key.jpg and key.cls")
    return _labelled(tar, parts)


def _labelled(tar: Path, parts: dict[str, dict[str, Member]]) -> list[_Sample]:
    samples = []
    descriptor = os.open(tar, os.O_RDONLY)
    try:
        for key, kinds in parts.items():
            if "image" not in kinds:
                raise InputError(f"{key!r} in the shard {str(tar)!r} has no image, only {', '.join(kinds)}; remove it")
            member = kinds.get("cls") or kinds.get("json")
            label = _NO_LABEL
            if member is not None:
                label = _label(os.pread(descriptor, member.size, member.offset), member, tar)
            samples.append(_Sample(kinds["image"], label))
    finally:
        os.close(descriptor)
    return samples


def _label(content: bytes, member: Member, tar: Path) -> int:
    label = None
    with suppress(ValueError, RecursionError):
        if member.name.lower().endswith(".cls"):
            label = int(decode_text(content))
        elif isinstance(values := json.loads(content), dict):
            label = next((values[key] for key in _LABEL_KEYS if key in values), _NO_LABEL)
            if label == _NO_LABEL:
                return _NO_LABEL
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= _HIGHEST_LABEL:
        raise InputError(
            f"the label {content[:40]!r} of {member.name!r} in the shard {str(tar)!r} is no whole number from 0 on; "
            "write the number of the class"
        )
    return label
