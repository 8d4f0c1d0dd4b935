"""PASCAL VOC's layout, 2007 to 2012: `JPEGImages`, `SegmentationClass`, `Annotations`, `ImageSets`."""

from functools import partial
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import numpy as np

from skipless.data.dense.finding import FileFinder, listed_files
from skipless.data.dense.reading import LayoutMissing, UnreadableItem, need_folder, read_index_mask, whole_box
from skipless.data.dense.records import IGNORE, BoxData, BoxItem, ObjectBoxes, SegmentationData, SegmentationItem

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes by label; the first is the background."""

VocSplit = Literal["train", "val", "trainval", "trainaug", "test"]


def voc_segmentation(root: Path, split: VocSplit = "train", *, year: int = 2012) -> SegmentationData:
    """Read VOC's masks: 21 classes, background included; id 255, the borders of objects, is ignored.

    Args:
        root: the folder `VOC2012`, the devkit above it, or the devkit's parent.
        split: a list of `ImageSets/Segmentation`. `trainaug` is the larger training set of Hariharan et al. (2011). It
            needs `SegmentationClassAug` and `trainaug.txt`, which are not part of VOC's download.
        year: year of the challenge.

    Raises:
        InputError: if the folder or its list is missing.
    """
    folder = _find(root, year)
    masks = folder / ("SegmentationClassAug" if split == "trainaug" else "SegmentationClass")
    listed = _listed(folder, "Segmentation", split)
    need_folder(masks, "VOC's masks there" if split != "trainaug" else "the masks that belong to trainaug.txt there")
    mask_of = FileFinder(masks, (".png",)).file_of
    items = (SegmentationItem(name, image, mask_of(name)) for name, image in listed)
    labels_of = np.full(256, -1, dtype=np.int16)
    labels_of[: len(VOC_CLASSES)] = np.arange(len(VOC_CLASSES))
    labels_of[255] = IGNORE
    return SegmentationData(f"VOC{year}", split, VOC_CLASSES, tuple(items), read_index_mask, labels_of)


def voc_boxes(
    root: Path,
    split: VocSplit = "trainval",
    *,
    year: int = 2012,
    keep_difficult: bool = True,
    keep_truncated: bool = True,
) -> BoxData:
    """Read VOC's boxes.

    VOC's files count pixels from 1 and include the last one. As in LOST and TokenCut, 1 is subtracted from xmin and
    ymin only, which gives boxes from 0 with exclusive maxima. The results of both papers include difficult objects.

    Args:
        root: the folder `VOC2012`, the devkit above it, or the devkit's parent.
        split: a list of `ImageSets/Main`.
        year: year of the challenge.
        keep_difficult: keep the objects that VOC calls difficult.
        keep_truncated: keep the objects that VOC calls truncated.

    Raises:
        InputError: if the folder or its list is missing.
    """
    folder = _find(root, year)
    listed = _listed(folder, "Main", split)
    need_folder(folder / "Annotations", "VOC's XML files there")
    annotation_of = FileFinder(folder / "Annotations", (".xml",)).file_of
    items = (BoxItem(name, image, annotation_of(name)) for name, image in listed)
    without = [name for name, kept in (("difficult", keep_difficult), ("truncated", keep_truncated)) if not kept]
    name = f"VOC{year}" + (f" without {' and '.join(without)}" if without else "")
    read = partial(_read_objects, keep_difficult=keep_difficult, keep_truncated=keep_truncated)
    return BoxData(name, split, tuple(items), read)


def _find(root: Path, year: int) -> Path:
    root = root.expanduser()
    candidates = [root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"]
    for folder in candidates:
        if (folder / "JPEGImages").is_dir():
            return folder
    raise LayoutMissing(
        f"no VOC{year} in {str(root)!r}: expected JPEGImages, Annotations and ImageSets there, in VOC{year} or in "
        f"VOCdevkit/VOC{year} below it"
    )


def _listed(folder: Path, kind: str, split: str) -> list[tuple[str, Path]]:
    """Return the names and images in a list; some lists of trainaug have the paths of both files in a line."""
    file = folder / "ImageSets" / kind / f"{split}.txt"
    splits = sorted(found.stem for found in file.parent.glob("*.txt") if "_" not in found.stem)
    remedy = f"there are {', '.join(splits)}" if splits else "fetch VOC's ImageSets again"
    return listed_files(file, folder / "JPEGImages", remedy)


def _read_objects(item: BoxItem, *, keep_difficult: bool, keep_truncated: bool) -> ObjectBoxes:
    try:
        found = [_read_object(node) for node in ET.parse(item.annotation).getroot().findall("object")]
    except (OSError, ET.ParseError, ValueError, LookupError) as error:  # LookupError: of an unknown encoding
        raise UnreadableItem(
            f"{str(item.annotation)!r} is no readable VOC annotation ({error}); fetch it again", item.annotation
        ) from error
    objects = ObjectBoxes(
        np.array([box for _, box, _, _ in found], dtype=np.int64).reshape(-1, 4),
        tuple(name for name, *_ in found),
        np.array([difficult for *_, difficult, _ in found], dtype=bool),
        np.array([truncated for *_, truncated in found], dtype=bool),
    )
    return objects.keep((keep_difficult | ~objects.difficult) & (keep_truncated | ~objects.truncated))


def _read_object(node: ET.Element) -> tuple[str, list[int], bool, bool]:
    # VOC2012 has coordinates such as 45.70000076293945, which are rounded to pixels.
    sides = (float(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    xmin, ymin, xmax, ymax = whole_box(*sides)
    # Both flags are optional in the files of some years.
    difficult, truncated = (node.findtext(flag, "0").strip() == "1" for flag in ("difficult", "truncated"))
    return _text(node, "name"), [xmin - 1, ymin - 1, xmax, ymax], difficult, truncated


def _text(node: ET.Element, path: str) -> str:
    text = node.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"an object lacks {path!r}")
    return text.strip()
