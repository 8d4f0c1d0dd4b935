"""`skipless data`."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from tyro.conf import Positional

from skipless.data.dense import BoxName, SegmentationName, contact_sheet, load_boxes, load_segmentation
from skipless.data.folder import EXTENSIONS, image_files
from skipless.data.multicrop import MultiCropConfig, draw_crops
from skipless.data.scenes import SIZES, write_scenes
from skipless.data.shards import write_shards
from skipless.errors import InputError
from skipless.studies.progress import counted


def data(
    what: Positional[Literal["scenes", "sheet", "show-crops", "shards"]],
    *,
    out: Path,
    data: Path | None = None,
    layout: Literal["voc", "ade20k", "coco", "imagenet"] = "voc",
    train: int = 1000,
    val: int = 250,
    size: int = 96,
    seed: int = 0,
    objects: Literal["auto", "fashion", "digits"] = "auto",
    shapes: Literal["square", "mixed"] = "square",
    at_most: int = 4,
    smallest: float = SIZES[0],
    largest: float = SIZES[1],
    colours: Literal["any", "class"] = "any",
    images: int | None = None,
    mode: Literal["exact", "fast"] = "exact",
) -> None:
    """Write scenes to try things on, draw what is in a data set or what DINO's crops make of it, or pack it in shards.

    Args:
        what: scenes (real objects on real photos, with exact masks, boxes and classes), sheet (a picture of a dense
            set's images, masks and boxes), show-crops (a picture of DINO's crops), or shards (an ImageNet-style folder
            as WebDataset's tars, which --data takes as it takes folders).
        out: a new folder for scenes, which the same command goes on with if it was cut off; a folder for shards; else a
            PNG file.
        data: the folder that is drawn or packed.
        layout: of scenes, the real data set whose files they look like; imagenet is folders of classes.
        train: number of training scenes.
        val: number of validation scenes.
        size: longer side of a scene in pixels.
        seed: of scenes, samples and crops.
        objects: of scenes: fashion (Fashion-MNIST), digits, or the first where it is on this machine.
        shapes: of scenes: square, or mixed.
        at_most: objects in a scene; one makes the class of an imagenet folder unambiguous.
        smallest: longer side of the smallest object, as a share of the scene's.
        largest: longer side of the largest object.
        colours: of objects: any hue, or a hue for each class, which makes classes far easier to learn.
        images: number of images that are drawn (12), or of a shard (1,000).
        mode: of crops.
    """
    if what == "scenes":
        with counted(what) as report:
            made = write_scenes(
                out, layout, train=train, val=val, size=size, seed=seed, objects=objects, shapes=shapes,
                at_most=at_most, smallest=smallest, largest=largest, colours=colours,
                progress=lambda split, done: report(done + (train if split == "val" else 0), train + val),
            )  # fmt: skip
        print(
            f"{out}: {made.train} training and {made.val} validation scenes of {len(made.classes)} classes of objects"
        )
        return
    if images is not None and images < 1:
        raise InputError(f"--images {images}: give at least 1")
    if data is None or not data.is_dir():
        raise InputError(f"{what} needs --data, a folder that exists, not {str(data)!r}")
    if what == "shards":
        packed = write_shards(data, out, images=images or 1000)
        counts = ", ".join(
            f"{packed.images[split]} {split} images in {packed.shards[split]}" for split in packed.images
        )
        print(f"{out}: {counts} shards, {packed.classes} classes")
        return
    count = images or 12
    problems = _sheet(data, out, count, seed) if what == "sheet" else _crops(data, out, count, seed, mode)
    print("\n".join([*problems, f"wrote {out}"]))


def _sheet(root: Path, out: Path, images: int, seed: int) -> tuple[str, ...]:
    """Draw the first set with masks, and the first with boxes, whose layout lies there."""
    masks = _first(get_args(SegmentationName), lambda name: load_segmentation(name, root))
    boxes = _first(get_args(BoxName), lambda name: load_boxes(name, root))
    if masks is None and boxes is None:
        raise InputError(f"{str(root)!r} has none of {', '.join((*get_args(SegmentationName), *get_args(BoxName)))}")
    return contact_sheet(out, masks, boxes, count=images, seed=seed)


def _first(names: tuple[Any, ...], load: Any) -> Any:
    for name in names:
        with suppress(InputError):
            return load(name)
    return None


def _crops(root: Path, out: Path, images: int, seed: int, mode: Literal["exact", "fast"]) -> tuple[str, ...]:
    files = sorted(root / os.fsdecode(file) for file in image_files(root))[:images]
    if not files:
        raise InputError(f"no image below {str(root)!r} (looked for {', '.join(EXTENSIONS)})")
    draw_crops(out, files, MultiCropConfig(mode=mode), seed=seed)
    return ()
