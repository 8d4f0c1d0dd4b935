"""ADE20K: the scene parsing benchmark (150 classes), and the full release with the same classes."""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from skipless.data.decoding import decode_text
from skipless.data.dense.ade20k_classes import ADE20K_CLASSES, FULL_INDICES, SECOND_INDICES
from skipless.data.dense.finding import FileFinder, one_image_a_mask, unique_ids
from skipless.data.dense.reading import first_folder, need_folder, read_colour_mask, read_index_mask
from skipless.data.dense.records import IGNORE, SegmentationData, SegmentationItem
from skipless.data.folder import image_files, without_extension
from skipless.errors import InputError

AdeSplit = Literal["train", "val"]

_FOLDERS = {"train": "training", "val": "validation"}
_HIGHEST_INDEX = 25 * 256 + 255  # red is at most 255


def ade20k_segmentation(root: Path, split: AdeSplit = "train") -> SegmentationData:
    """Read the scene parsing benchmark: ids 1 to 150 become classes 0 to 149, and id 0 (other) is ignored.

    Args:
        root: the folder `ADEChallengeData2016`, with `images` and `annotations`, or its parent. The class names are
            those of its `objectInfo150.txt`, if it has that file.
        split: `train` or `val`; the folders are `training` and `validation`.

    Raises:
        InputError: if a folder is missing or has no images, or the list of classes is not readable.
    """
    folder = first_folder(
        [path / "images" / _FOLDERS[split] for path in (root.expanduser(), root.expanduser() / "ADEChallengeData2016")],
        f"ADEChallengeData2016/images/{_FOLDERS[split]}/*.jpg (the full release is read as 'ade20k-full')",
    )
    folder, images = folder.parents[1], folder
    masks = need_folder(folder / "annotations" / _FOLDERS[split], f"the masks of {images} there, *.png")
    found, mask_of = one_image_a_mask(images), FileFinder(masks, (".png",)).file_of
    if not found:
        raise InputError(f"no *.jpg in {str(images)!r}; unpack ADEChallengeData2016.zip again")
    items = (SegmentationItem(name, image, mask_of(name)) for name, image in found.items())
    info = folder / "objectInfo150.txt"
    classes = read_class_info(info) if info.is_file() else ADE20K_CLASSES
    labels_of = np.full(256, -1, dtype=np.int16)
    labels_of[: len(classes) + 1] = [IGNORE, *range(len(classes))]
    return SegmentationData("ADE20K", split, classes, tuple(items), read_index_mask, labels_of)


def ade20k_full_segmentation(root: Path, split: AdeSplit = "train") -> SegmentationData:
    """Read the full release (2016 or 2021), with its object masks reduced to the benchmark's 150 classes.

    The reduction is the benchmark's own (CSAILVision/sceneparsing, `convertFromADE`, whose example it reproduces in
    every pixel): objects are mapped by their index, parts are dropped, and everything else is ignored. The benchmark
    also resized images to a short side of 512 pixels, which is left to the caller. The 2021 release has other images
    than the benchmark, so results on it differ. Its indices are verified for the 18 classes in its three public
    samples only.

    Args:
        root: the folder `ADE20K_2016_07_26` or `ADE20K_2021_17_01`, or its parent. Images lie below
            `images/training` or `images/ADE/training`, each with a mask `*_seg.png` beside it.
        split: `train` or `val`; the folders are `training` and `validation`.

    Raises:
        InputError: if a folder is missing or has no images.
    """
    releases = [root.expanduser(), *sorted(root.expanduser().glob("ADE20K_*"))]
    name = _FOLDERS[split]
    folder = first_folder(
        [release / "images" / path for release in releases for path in (f"ADE/{name}", name)],
        f"ADE20K_2021_17_01/images/ADE/{name}/**/*.jpg, each with a mask *_seg.png beside it",
    )
    items = _with_masks_beside(folder)
    if not items:
        raise InputError(f"no *.jpg below {str(folder)!r}; unpack the release again")
    labels_of = np.full(_HIGHEST_INDEX + 1, IGNORE, dtype=np.int16)
    labels_of[list(FULL_INDICES)] = np.arange(len(FULL_INDICES))
    for class_name, index in SECOND_INDICES.items():
        labels_of[index] = ADE20K_CLASSES.index(class_name)
    return SegmentationData("ADE20K (full release)", split, ADE20K_CLASSES, items, read_colour_mask, labels_of)


def _with_masks_beside(folder: Path) -> tuple[SegmentationItem, ...]:
    """Return the images below a folder. A PNG is an image only if it has a mask; the others are masks of all kinds."""
    files = sorted(Path(os.fsdecode(file)) for file in image_files(folder))
    masks = {without_extension(str(file)): file for file in files if file.suffix.lower() == ".png"}
    stems = {file: without_extension(str(file)) for file in files}
    images = [file for file in files if file.suffix.lower() != ".png" or f"{stems[file]}_seg" in masks]
    owners: dict[str, Path] = {}
    for image in images:
        if (other := owners.setdefault(stems[image], image)) != image:
            raise InputError(
                f"{str(other)!r} and {str(image)!r} in {str(folder)!r} would have the same mask; remove one of them"
            )
    mask_of = {image: masks.get(f"{stems[image]}_seg", Path(f"{stems[image]}_seg.png")) for image in images}
    ids = unique_ids([str(image) for image in images])
    return tuple(
        SegmentationItem(name, folder / image, folder / mask_of[image]) for name, image in zip(ids, images, strict=True)
    )


def read_class_info(file: Path) -> tuple[str, ...]:
    """Read `objectInfo150.txt`: a header, then one class a line, numbered from 1, with synonyms in the last column.

    Returns:
        The first synonym of every class.

    Raises:
        InputError: if the file does not have this format.
    """
    try:
        rows = [line.split("\t") for line in decode_text(file.read_bytes()).splitlines()[1:] if line.strip()]
        indices = [int(row[0]) for row in rows]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the classes in {str(file)!r} ({error}); fetch the file again") from error
    if not rows or indices != list(range(1, len(rows) + 1)) or len(rows) >= IGNORE:
        raise InputError(f"{str(file)!r} does not number its classes from 1 on, line by line; fetch the file again")
    return tuple(row[-1].split(",")[0].strip() for row in rows)
