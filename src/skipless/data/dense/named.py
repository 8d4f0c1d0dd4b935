"""Loading dense data sets by the names of the command line."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

from skipless.choices import BoxName, SegmentationName
from skipless.data.dense.ade20k import ade20k_full_segmentation, ade20k_segmentation
from skipless.data.dense.coco import coco_boxes, coco_stuff_segmentation
from skipless.data.dense.records import BoxData, SegmentationData
from skipless.data.dense.voc import voc_boxes, voc_segmentation
from skipless.errors import InputError, did_you_mean

_SEGMENTATION: dict[str, Callable[[Path, Any], SegmentationData]] = {
    "voc": voc_segmentation,
    "ade20k": ade20k_segmentation,
    "ade20k-full": ade20k_full_segmentation,
    "coco-stuff": coco_stuff_segmentation,
    "coco-stuff-27": partial(coco_stuff_segmentation, coarse=True),
}
_BOXES: dict[str, Callable[[Path], BoxData]] = {
    "voc07": partial(voc_boxes, year=2007),
    "voc12": partial(voc_boxes, year=2012),
    "coco20k": coco_boxes,
}


def load_segmentation(
    name: SegmentationName, root: Path, split: str = "train", *, sample: int | None = None, seed: int = 0
) -> SegmentationData:
    """Read a set for semantic segmentation by name.

    Args:
        name: the set, which also decides the layout below the root.
        root: folder of the set.
        split: `train` or `val`; VOC also has `trainval` and `trainaug`.
        sample: number of images to draw; the paper trains on 3,000 of ADE20K and of COCO-Stuff. None takes all.
        seed: seed of the draw.

    Raises:
        InputError: if there is no such set or split, or it is not below the root.
    """
    if name not in _SEGMENTATION:
        near = did_you_mean(name, _SEGMENTATION)
        raise InputError(f"no segmentation set {name!r}; {near}there are {', '.join(get_args(SegmentationName))}")
    splits = ("train", "val", "trainval", "trainaug") if name == "voc" else ("train", "val")
    if split not in splits:
        raise InputError(f"{name!r} has no split {split!r}; it has {', '.join(splits)}")
    data = _SEGMENTATION[name](root, split)
    return data if sample is None else data.sample(sample, seed)


def load_boxes(name: BoxName, root: Path, *, sample: int | None = None, seed: int = 0) -> BoxData:
    """Read a set for object discovery by name, as LOST and TokenCut use it: VOC's `trainval`, or COCO20k.

    Args:
        name: the set, which also decides the layout below the root.
        root: folder of the set.
        sample: number of images to draw; None takes all.
        seed: seed of the draw.

    Raises:
        InputError: if there is no such set, or it is not below the root.
    """
    if name not in _BOXES:
        near = did_you_mean(name, _BOXES)
        raise InputError(f"no set of boxes {name!r}; {near}there are {', '.join(get_args(BoxName))}")
    data = _BOXES[name](root)
    return data if sample is None else data.sample(sample, seed)
