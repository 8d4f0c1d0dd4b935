"""write_scenes: fills a folder with scenes, and continues an interrupted call."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from skipless.choices import SceneLayout as Layout
from skipless.data.scenes.compose import SIZES, Colours, Scene, Shapes, compose
from skipless.data.scenes.files import Files
from skipless.data.scenes.layouts import (
    OBJECT_CLASSES,
    PHOTO_CLASSES,
    write_ade20k,
    write_coco,
    write_imagenet,
    write_voc,
)
from skipless.data.scenes.sources import PHOTOS, Objects, Sources, load_sources
from skipless.display import Record
from skipless.errors import InputError

MARKER = "scenes.json"  # written last: a folder that has it is complete
VERSION = 1  # version of the drawing code; another version draws other scenes
_PARTIAL = ".scenes-partial"
_SMALLEST, _LARGEST = 32, 1024


@dataclass(frozen=True, repr=False)
class WrittenScenes(Record):
    """The contents of a folder of scenes, as in its `scenes.json`.

    Attributes:
        layout: layout of the folder.
        train: number of training scenes.
        val: number of validation scenes.
        size: longer side of a scene in pixels.
        shapes: `square`, or `mixed`: 1:1, 4:3 and 3:4.
        seed: seed of the set.
        objects: `fashion` or `digits`.
        classes: class in this layout of every kind of object.
        photos: class in this layout of every photo; empty for a layout without masks.
        at_most: largest number of objects in a scene.
        smallest: longer side of the smallest object, as a share of the scene's.
        largest: longer side of the largest object, as a share of the scene's.
        colours: hues of the objects: `any`, or one for each `class`.
        version: version of the drawing code.
    """

    layout: Layout
    train: int
    val: int
    size: int
    shapes: Shapes
    seed: int
    objects: str
    classes: dict[str, str]
    photos: dict[str, str]
    at_most: int = 4
    smallest: float = SIZES[0]
    largest: float = SIZES[1]
    colours: Colours = "any"
    version: int = VERSION

    @property
    def stands_for(self) -> dict[str, str]:
        """What is drawn under a class's name, which is borrowed: `{"chair": "digit 5"}`.

        A background, and a class that is called as it looks, borrow nothing.
        """
        what = {kind: f"digit {kind}" if self.objects == "digits" else kind for kind in self.classes}
        drawn = {name: what[kind] for kind, name in self.classes.items() if name.lower() != kind.lower()}
        for photo, name in self.photos.items():
            if name != "background":
                drawn[name] = f"photo {photo}"
        return drawn

    def _summary(self) -> str:
        sets = f"{self.train:,} training and {self.val:,} validation scenes"
        return f"{self.layout}, {sets} of {self.size} px, {self.objects}, {self.shapes}, seed {self.seed}"


def write_scenes(
    out: Path,
    layout: Layout = "voc",
    *,
    train: int = 1000,
    val: int = 250,
    size: int = 96,
    seed: int = 0,
    objects: Objects = "auto",
    shapes: Shapes = "square",
    at_most: int = 4,
    smallest: float = SIZES[0],
    largest: float = SIZES[1],
    colours: Colours = "any",
    progress: Callable[[str, int], None] | None = None,
) -> WrittenScenes:
    """Write scenes of real objects on real photos, with exact masks, boxes and classes, in a real set's layout.

    A scene has one to four objects (`at_most`), of 20 to 60 % of its longer side (`smallest`, `largest`), on one or two
    photos. Objects occlude each other; an object of which less than a quarter is visible is dropped. Training and
    validation have no object and no pixel of a photo in common. Every scene is a function of seed, split and index. The
    same call continues an interrupted one.

    Args:
        out: a new or empty folder, or one that the same call has filled or begun.
        layout: `voc` (masks and boxes), `ade20k` (masks in which the photos have labels), `coco` (COCO-Stuff's masks
            and COCO20k's boxes), or `imagenet` (a folder for each class of largest object, with equal numbers).
        train: number of training scenes.
        val: number of validation scenes.
        size: longer side of a scene in pixels.
        seed: seed of the set.
        objects: `fashion`, `digits`, or `auto`: Fashion-MNIST if it is on this machine, else the digits.
        shapes: `square`, or `mixed`: 1:1, 4:3 and 3:4.
        at_most: largest number of objects in a scene; with 1, the class of a scene is unambiguous.
        smallest: longer side of the smallest object, as a share of the scene's.
        largest: longer side of the largest object, as a share of the scene's.
        colours: `any` draws the hue of an object independently of its class. `class` gives each class a hue of its own,
            which makes classes far easier to learn; results of the two are not comparable.
        progress: called with a split and the number of its finished scenes.

    Raises:
        InputError: if an argument is out of range, or the folder holds something else or is not writable.
    """
    _check(layout, train, val, size, shapes, at_most)
    _check_objects(smallest, largest, colours)
    _check_folder(out)
    sources, kinds = load_sources(objects)
    names = kinds if layout == "imagenet" else OBJECT_CLASSES[layout]
    photos = {} if layout == "imagenet" else dict(zip(PHOTOS, PHOTO_CLASSES[layout], strict=True))
    classes = dict(zip(kinds, names, strict=True))
    kind = sources["train"].kind
    plan = WrittenScenes(
        layout, train, val, size, shapes, seed, kind, classes, photos, at_most, float(smallest), float(largest),
        colours,
    )  # fmt: skip
    try:
        if _begin(out, plan):
            _fill(Files(out / _PARTIAL), plan, sources, kinds, progress or (lambda split, done: None))
            _finish(out)
    except OSError as error:
        raise InputError(
            f"cannot write scenes to {str(out)!r} ({error}); make room or give another folder, then give the same "
            "command again: it goes on where it was"
        ) from error
    return plan


def read_scenes(folder: Path) -> WrittenScenes | None:
    """What `write_scenes` has put into a folder; None where it holds no complete set of scenes.

    Raises:
        InputError: if the folder's `scenes.json` cannot be read.
    """
    if not (folder / MARKER).is_file():
        return None
    found = _read(folder / MARKER)
    try:
        return WrittenScenes(**found)
    except TypeError as error:
        raise InputError(f"{str(folder / MARKER)!r} is of another version ({error}); write the scenes anew") from error


def _check(layout: str, train: int, val: int, size: int, shapes: str, at_most: int) -> None:
    if layout not in get_args(Layout):
        raise InputError(f"no layout {layout!r}; give {', '.join(get_args(Layout))}")
    if shapes not in get_args(Shapes):
        raise InputError(f"no shapes {shapes!r}; give {', '.join(get_args(Shapes))}")
    if at_most < 1:
        raise InputError(f"at_most={at_most}: a scene has at least 1 object")
    if train < 1 or val < 1:
        raise InputError(f"{train} training and {val} validation scenes make no set; give at least 1 of each")
    if layout == "imagenet" and min(train, val) < 10:
        raise InputError(f"{min(train, val)} scenes leave some of the 10 classes empty; give at least 10 of each split")
    if not _SMALLEST <= size <= _LARGEST:
        raise InputError(f"scenes of {size} pixels cannot be drawn; give a size from {_SMALLEST} to {_LARGEST}")


def _check_objects(smallest: float, largest: float, colours: str) -> None:
    if colours not in get_args(Colours):
        raise InputError(f"no colours {colours!r}; give {', '.join(get_args(Colours))}")
    if not 0.05 <= smallest <= largest <= 1:
        raise InputError(f"objects of {smallest} to {largest} of a scene's side; give 0.05 <= smallest <= largest <= 1")


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; give a new folder")
    ours = (out / MARKER).is_file() or (out / _PARTIAL).is_dir()
    if not ours and out.exists() and any(out.iterdir()):
        raise InputError(f"{str(out)!r} is not empty and holds no scenes; give a new folder")


def _begin(out: Path, plan: WrittenScenes) -> bool:
    """Tell whether there are scenes left to write; refuse a folder that holds other scenes."""
    for marker, left in ((out / MARKER, False), (out / _PARTIAL / MARKER, True)):
        if marker.is_file():
            found = _read(marker)
            differing = sorted(name for name, value in asdict(plan).items() if found.get(name) != value)
            if differing:
                name = differing[0]
                raise InputError(
                    f"{str(out)!r} holds other scenes ({name} {found.get(name)!r}, not {getattr(plan, name)!r}); "
                    "remove it or give another folder"
                )
            return left
    Files(out / _PARTIAL).put_json(MARKER, asdict(plan), indent=2)
    return True


def _read(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(marker)!r} is corrupt ({error}); remove its folder") from error
    return found if isinstance(found, dict) else {}


def _fill(
    files: Files,
    plan: WrittenScenes,
    sources: dict[str, Sources],
    kinds: tuple[str, ...],
    progress: Callable[[str, int], None],
) -> None:
    def scenes(split: Literal["train", "val"]) -> Iterator[Scene]:
        for index in range(getattr(plan, split)):
            main = index % len(kinds) if plan.layout == "imagenet" else None
            yield compose(
                sources[split], split, index,
                size=plan.size, seed=plan.seed, shapes=plan.shapes, main=main, at_most=plan.at_most,
                sizes=(plan.smallest, plan.largest), colours=plan.colours,
            )  # fmt: skip
            progress(split, index + 1)

    splits = {"train": scenes("train"), "val": scenes("val")}
    if plan.layout == "imagenet":
        write_imagenet(files, splits, kinds)
    else:
        {"voc": write_voc, "ade20k": write_ade20k, "coco": write_coco}[plan.layout](files, splits)


def _finish(out: Path) -> None:
    """Move the complete files into the folder, the marker last."""
    partial = out / _PARTIAL
    for entry in sorted(partial.iterdir(), key=lambda entry: (entry.name == MARKER, entry.name)):
        target = out / entry.name
        if target.is_dir():  # left by an interrupted move
            shutil.rmtree(target)
        os.replace(entry, target)
    partial.rmdir()


def write_single_objects(folder: Path) -> str:
    """Write what models of scale `scenes` learn to name: one large object of any hue in each of 9,000 small scenes.

    Returns:
        The folder, as recipes take it.
    """
    write_scenes(folder, "imagenet", train=8000, val=1000, size=64, at_most=1, smallest=0.8, largest=1.0)
    return str(folder)
