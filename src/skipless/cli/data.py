"""`skipless data`."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from skipless.data.scenes import write_scenes
from skipless.studies.progress import counted


def data(
    what: Positional[Literal["scenes"]],
    *,
    out: Path,
    layout: Literal["voc", "ade20k", "coco", "imagenet"] = "voc",
    train: int = 1000,
    val: int = 250,
    size: int = 96,
    seed: int = 0,
    objects: Literal["auto", "fashion", "digits"] = "auto",
    shapes: Literal["square", "mixed"] = "square",
) -> None:
    """Write data to try things on: scenes of real objects on real photos, with exact masks, boxes and classes.

    Args:
        what: scenes.
        out: a new folder; the same command goes on with one that was cut off.
        layout: the real data set whose files these look like: voc, ade20k, coco, or imagenet (folders of classes).
        train: number of training scenes.
        val: number of validation scenes.
        size: longer side in pixels.
        seed: of the set.
        objects: fashion (Fashion-MNIST), digits, or the first where it is on this machine.
        shapes: square, or mixed.
    """
    with counted(what) as report:
        made = write_scenes(
            out, layout, train=train, val=val, size=size, seed=seed, objects=objects, shapes=shapes,
            progress=lambda split, done: report(done + (train if split == "val" else 0), train + val),
        )  # fmt: skip
    print(f"{out}: {made.train} training and {made.val} validation scenes of {len(made.classes)} classes of objects")
