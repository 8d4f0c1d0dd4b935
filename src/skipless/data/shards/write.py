"""write_shards: packs an ImageNet-style folder into shards, with unchanged files and a label beside each."""

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch

from skipless.data.decoding import decode_text
from skipless.data.folder import scan_split
from skipless.display import Record, Table
from skipless.display.values import counted
from skipless.errors import InputError

CLASSES = "classes.txt"


@dataclass(frozen=True, repr=False)
class ShardsWritten(Record):
    """The result of `write_shards`.

    Attributes:
        images: number of images of each split.
        shards: number of shards of each split.
        classes: number of classes.
    """

    images: dict[str, int]
    shards: dict[str, int]
    classes: int

    def _summary(self) -> str:
        parts = [f"{name} {count:,} in {counted(self.shards[name], 'shard')}" for name, count in self.images.items()]
        return f"{', '.join(parts)}, {self.classes} classes"

    def tables(self) -> tuple[Table, ...]:
        """A row for each split."""
        rows = [(name, f"{count:,}", str(self.shards[name])) for name, count in self.images.items()]
        return (Table(("split", "images", "shards"), rows, f"{self.classes} classes", align="lrr"),)


def write_shards(folder: Path, out: Path, *, images: int = 1000, shuffle_seed: int | None = None) -> ShardsWritten:
    """Write `train/CLASS/*` and `val/CLASS/*` of a folder as `out/train-000000.tar` and so on.

    The files are not changed. In the folder's order, training on the shards equals training on the folder bit for bit.
    Readers that stream shards from first to last need shuffled training images.

    Args:
        folder: an ImageNet-style folder; `val` may be missing.
        out: folder for the shards; created if it does not exist, and must not contain shards.
        images: number of images per shard; those of ImageNet have 110 kB.
        shuffle_seed: seed by which to shuffle the training images; None keeps the folder's order.

    Raises:
        InputError: if the folder is not ImageNet-style, the name of a class is no line of text, or `out` contains
            shards or cannot be written.
    """
    if images < 1:
        raise InputError(f"{images} images a shard; give at least 1")
    if any(out.glob("*.tar")):
        raise InputError(f"{str(out)!r} holds shards already; give another folder, or remove them")
    splits = ["train", "val"] if (folder / "val").is_dir() else ["train"]
    scanned = {split: scan_split(folder / split) for split in splits}
    classes = scanned["train"][0]
    if any(other != classes for other, _, _ in scanned.values()):
        raise InputError(f"train and val of {str(folder)!r} differ in their classes; make them agree")
    if unfit := [name for name in classes if "\n" in name or "\r" in name or not name.strip()]:
        raise InputError(
            f"the class {unfit[0]!r} of {str(folder)!r} is blank or has a line break in its name; rename its folder"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        shards = {}
        for split, (_, files, labels) in scanned.items():
            order = list(range(len(files)))
            if split == "train" and shuffle_seed is not None:
                order = torch.randperm(len(files), generator=torch.Generator().manual_seed(shuffle_seed)).tolist()
            entries = ((os.fsdecode(bytes(files[i])), int(labels[i])) for i in order)
            shards[split] = _write_split(folder / split, out / split, _keyed(entries), images)
        # A name that is no UTF-8 keeps its bytes.
        (out / CLASSES).write_bytes(("\n".join(classes) + "\n").encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise InputError(f"cannot write shards to {str(out)!r} ({error}); make room there, then begin anew") from error
    return ShardsWritten({split: len(files) for split, (_, files, _) in scanned.items()}, shards, len(classes))


def read_classes(folder: Path, count: int) -> tuple[str, ...]:
    """Return the names in a folder's `classes.txt`, a line each, or the numbers as names if there is no such file.

    Raises:
        InputError: if the file cannot be read, has fewer names than there are classes, one of them twice, or a blank
            line between.
    """
    file = folder / CLASSES
    remedy = "give one line for each class, or remove the file to use numbers"
    try:
        lines = decode_text(file.read_bytes(), errors="surrogateescape").rstrip("\n").split("\n")
    except FileNotFoundError:
        return tuple(str(label) for label in range(count))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the classes in {str(file)!r} ({error}); {remedy}") from error
    names = tuple(lines) if lines != [""] else ()
    if blank := [place for place, name in enumerate(names, 1) if not name.strip()]:
        raise InputError(f"line {blank[0]} of {str(file)!r} is blank, where the name of a class should be; {remedy}")
    if len(names) < count:
        raise InputError(f"{str(file)!r} names {len(names)} classes, and the labels go up to {count - 1}; {remedy}")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"{str(file)!r} names the class {repeated[0]!r} twice; {remedy}")
    return names


def _keyed(entries: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str, str, int]]:
    """Yield path, key, extension and label of every file; keys are unique and have no dot, at which readers stop."""
    taken = set()
    for file, label in entries:
        stem, extension = os.path.splitext(file)
        folder, name = os.path.split(stem)
        name = name.replace(".", "_")
        name = f"x{name}" if name.startswith("__") and name.endswith("__") else name  # readers skip such names
        plain = os.path.join(folder, name)
        key = next(key for key in (plain, *(f"{plain}-{n}" for n in islice(count(2), 1000))) if key not in taken)
        taken.add(key)
        yield file, key, extension.lower(), label


def _write_split(root: Path, out: Path, entries: Iterator[tuple[str, str, str, int]], images: int) -> int:
    for number in count():
        part = list(islice(entries, images))
        if not part:
            return number
        shard = out.with_name(f"{out.name}-{number:06}.tar")
        temporary = shard.with_name(f".{shard.name}.tmp")
        try:
            _write_shard(root, temporary, part)
            os.replace(temporary, shard)
        finally:
            temporary.unlink(missing_ok=True)
    raise AssertionError


def _write_shard(root: Path, shard: Path, entries: Sequence[tuple[str, str, str, int]]) -> None:
    with tarfile.open(shard, "w") as tar:
        for file, key, extension, label in entries:
            for name, content in ((key + extension, (root / file).read_bytes()), (f"{key}.cls", b"%d" % label)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
