"""COCO: COCO-Stuff's masks (171 or 27 classes), and boxes for object discovery (COCO20k)."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from skipless.data.dense.coco_classes import (
    COARSE_CLASSES,
    COARSE_OF,
    COCO_LABELS,
    COCO_STUFF_CLASSES,
    UNUSED_LABELS,
)
from skipless.data.dense.coco_instances import Instances
from skipless.data.dense.finding import FileFinder, image_names, listed_files, one_image_a_mask, unique_ids
from skipless.data.dense.reading import UnreadableItem, first_folder, need_folder, read_index_mask, read_json
from skipless.data.dense.records import IGNORE, BoxData, BoxItem, ObjectBoxes, SegmentationData, SegmentationItem
from skipless.data.folder import without_extension
from skipless.errors import InputError

COCO20K_LIST = "coco_20k_filenames.txt"  # its name in the LOST repository
_TRAIN_IDS = "_labelTrainIds"

CocoSplit = Literal["train", "val"]
CocoImages = Literal["train2014", "val2014", "train2017", "val2017"]


def coco_stuff_segmentation(
    root: Path, split: CocoSplit = "train", *, coarse: bool = False, listing: Path | None = None
) -> SegmentationData:
    """Read COCO-Stuff (164k): 171 classes, or 27 coarse ones; 255 is ignored.

    Images lie in `images/train2017` or `train2017`. Masks lie in `annotations/train2017` or `stuffthingmaps/train2017`
    (as in the archive), either as `*_labelTrainIds.png` (ids 0 to 170, mmsegmentation's conversion) or as `*.png` (ids
    0 to 181 of the download, of which 11 are never used). If a folder has both, the former are read.

    Args:
        root: the folder that contains these folders.
        split: `train` or `val`, for `train2017` or `val2017`.
        coarse: reduce the classes to the 27 of IIC, PiCIE and STEGO.
        listing: a file with one image name a line, for published subsets; by default, all images are read. Results with
            27 classes are usually reported on IIC's `Coco164kFull_Stuff_Coarse_7.txt`.

    Raises:
        InputError: if a folder is missing or has no images, or the listing cannot be read.
    """
    root, part = root.expanduser(), f"{split}2017"
    images = _image_folder(root, part)
    masks = first_folder(
        [root / name / part for name in ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")],
        f"the masks of stuffthingmaps_trainval2017.zip in annotations/{part} or stuffthingmaps/{part}",
    )
    train_ids = any(without_extension(name).endswith(_TRAIN_IDS) for name in image_names(masks, (".png",)))
    if listing is None:
        found = sorted(one_image_a_mask(images).items())
    else:
        found = listed_files(listing.expanduser(), images, "give one image name a line")
    if not found:
        raise InputError(f"no *.jpg in {str(images)!r}; unpack {part}.zip again")
    ending, mask_of = _TRAIN_IDS if train_ids else "", FileFinder(masks, (".png",)).file_of
    items = (SegmentationItem(name, image, mask_of(f"{name}{ending}")) for name, image in found)
    classes = COARSE_CLASSES if coarse else COCO_STUFF_CLASSES
    labels_of = _labels_of(train_ids=train_ids, coarse=coarse)
    return SegmentationData(f"COCO-Stuff {len(classes)}", split, classes, tuple(items), read_index_mask, labels_of)


def coco_boxes(
    root: Path,
    images: CocoImages = "train2014",
    *,
    listing: Path | None = None,
    count: int | None = None,
    seed: int = 0,
) -> BoxData:
    """Read COCO's boxes without crowds, rounded to integer pixels as in LOST and TokenCut.

    COCO20k is a published list of 19,817 files of train2014 (`datasets/coco_20k_filenames.txt` of the LOST
    repository), which is read from the root or from `annotations`. `count` draws another subset by `seed` instead. Its
    name says so, and results on it are not comparable with those on COCO20k.

    Args:
        root: the folder above `train2014` or `images/train2014`, and above `annotations/instances_train2014.json`.
        images: the images and their JSON file.
        listing: a file with one file name or id a line; its order is kept.
        count: number of images to draw in place of a list; 0 takes all images.
        seed: seed of the draw.

    Raises:
        InputError: if a folder or file is missing or corrupt, there is neither list nor `count`, or the JSON file lacks
            an image of the list.
    """
    root = root.expanduser()
    folder = _image_folder(root, images)
    file = root / "annotations" / f"instances_{images}.json"
    tables = Instances(file, read_json(file))
    listing = _listing(root, listing, images) if count is None else None
    ids = dict(zip(tables.names, unique_ids(list(tables.names.values())), strict=True))
    items = tuple(BoxItem(ids[number], folder / tables.names[number], file) for number in tables.chosen(listing))
    read = partial(_objects_of, {ids[number]: found for number, found in tables.objects.items()})
    whole = BoxData(f"COCO {images}", images, items, read)
    if listing is not None:
        name = "COCO20k" if listing.name == COCO20K_LIST else f"COCO {images} ({listing.name})"
        return BoxData(name, images, items, read)
    if not count:
        return whole
    drawn = whole.sample(count, seed)
    return BoxData(f"COCO {images} ({count} images by seed {seed}, not COCO20k)", images, drawn.items, read)


def _objects_of(table: dict[str, ObjectBoxes | str], item: BoxItem) -> ObjectBoxes:
    objects = table[item.id]
    if isinstance(objects, str):
        raise UnreadableItem(
            f"{str(item.annotation)!r} has for {str(item.image)!r} a box that is none ({objects}); repair it",
            item.annotation,
        )
    return objects


def _listing(root: Path, listing: Path | None, images: str) -> Path:
    for file in [listing] if listing is not None else [root / COCO20K_LIST, root / "annotations" / COCO20K_LIST]:
        if file.expanduser().is_file():
            return file.expanduser()
    if listing is not None:
        raise InputError(f"no list {str(listing)!r}; give a file with one file name or id a line")
    raise InputError(
        f"no {COCO20K_LIST!r} in {str(root)!r}: copy it there from the LOST repository (datasets/), or give a count to "
        f"draw other images of {images} by seed"
    )


def _image_folder(root: Path, part: str) -> Path:
    need_folder(root, f"COCO's images/{part} and annotations there")
    return first_folder([root / "images" / part, root / part], f"the images of {part}.zip there")


def _labels_of(*, train_ids: bool, coarse: bool) -> np.ndarray:
    annotated = [index for index, name in enumerate(COCO_LABELS) if name not in UNUSED_LABELS]
    labels = np.array(COARSE_OF)[annotated] if coarse else np.arange(len(annotated))
    labels_of = np.full(256, -1, dtype=np.int16)
    labels_of[np.arange(len(annotated)) if train_ids else annotated] = labels
    labels_of[255] = IGNORE
    return labels_of
