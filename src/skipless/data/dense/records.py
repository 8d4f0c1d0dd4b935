"""Images with masks or with boxes, whatever layout they come from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt8
from PIL import Image

from skipless.data.dense.reading import UnreadableItem, read_rgb
from skipless.errors import InputError

IGNORE = 255  # in a loaded mask, whatever the layout: the pixel counts nowhere


@dataclass(frozen=True)
class SegmentationItem:
    """Where one image and its mask lie; `id` is the image's name without its ending."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """One split of a set for semantic segmentation.

    Attributes:
        name: the set and its classes, for tables.
        split: which part of it.
        classes: their names; a label is a position in it.
        items: the images, in the order of the set's list, or by name where it has none.
        read_ids: mask file to the ids that it holds.
        labels_of: label of every id: a position in `classes`, `IGNORE`, or -1 where no mask may hold the id.
        ignore: the label of pixels that count nowhere.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    items: tuple[SegmentationItem, ...]
    read_ids: Callable[[Path], np.ndarray]
    labels_of: Int16[np.ndarray, " ids"]
    ignore: int = IGNORE

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> tuple[Image.Image, UInt8[np.ndarray, "h w"]]:
        """Decode one image to RGB, and its mask to labels.

        Neither is turned as the file's EXIF data may ask: the masks were drawn on the pixels as they are stored.

        Raises:
            UnreadableItem: if one of the two is missing or corrupt, they differ in size, or the mask holds an id that
                the set's classes do not know.
        """
        return self.load_image(index), self.load_mask(index)

    def load_image(self, index: int) -> Image.Image:
        """Decode the image alone to RGB.

        Raises:
            UnreadableItem: if it is missing or corrupt.
        """
        return read_rgb(self.items[index].image)

    def load_mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Decode the mask alone to labels: positions in `classes`, or `ignore`.

        Raises:
            UnreadableItem: as `load` does, unless it is the image that cannot be read.
        """
        file = self.items[index].mask
        ids = self.read_ids(file)
        self._refuse_other_size(self.items[index], ids.shape[1], ids.shape[0])
        labels = self.labels_of[np.minimum(ids, len(self.labels_of) - 1)]
        unknown = (labels < 0) | (ids >= len(self.labels_of))
        if unknown.any():
            raise UnreadableItem(
                f"{str(file)!r} holds label {ids[unknown].min()}, which {self.name} with its {len(self.classes)} "
                "classes does not have; give the masks that belong to these classes",
                file,
            )
        return labels.astype(np.uint8)

    def _refuse_other_size(self, item: SegmentationItem, width: int, height: int) -> None:
        try:
            with Image.open(item.image) as opened:  # its header alone
                size = opened.size
        except OSError:
            return
        if size != (width, height):
            raise UnreadableItem(
                f"{str(item.mask)!r} is {width} x {height} pixels, its image {str(item.image)!r} {size[0]} x {size[1]}"
                "; fetch the two again",
                item.mask,
            )

    def sample(self, count: int, seed: int = 0) -> "SegmentationData":
        """Keep `count` images, drawn by seed: see `sample_items`."""
        return replace(self, items=sample_items(self.items, count, seed, self.name))


@dataclass(frozen=True)
class BoxItem:
    """Where one image and its annotation lie; `id` is the image's name without its ending."""

    id: str
    image: Path
    annotation: Path


@dataclass(frozen=True, eq=False)
class ObjectBoxes:
    """The annotated objects of one image.

    Attributes:
        boxes: xmin, ymin, xmax, ymax in pixels from 0: the first column and row of the object, and those after its
            last, so that the width is xmax - xmin.
        classes: name of every object's class, as the annotation has it.
        difficult: which objects VOC calls difficult; none of COCO's.
        truncated: which objects VOC calls truncated; none of COCO's.
    """

    boxes: Int64[np.ndarray, "n 4"]
    classes: tuple[str, ...]
    difficult: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, chosen: Bool[np.ndarray, " n"]) -> "ObjectBoxes":
        """Leave out what is not chosen."""
        classes = tuple(name for name, kept in zip(self.classes, chosen, strict=True) if kept)
        return ObjectBoxes(self.boxes[chosen], classes, self.difficult[chosen], self.truncated[chosen])


@dataclass(frozen=True, eq=False)
class BoxData:
    """One split of a set for object discovery.

    An image may have no box (VOC without its difficult objects, COCO's images of crowds): it counts nowhere.

    Attributes:
        name: the set and its conventions, for tables.
        split: which part of it.
        items: the images, in the order of the set's list.
        read_objects: item to its objects.
    """

    name: str
    split: str
    items: tuple[BoxItem, ...]
    read_objects: Callable[[BoxItem], ObjectBoxes]

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> tuple[Image.Image, ObjectBoxes]:
        """Decode one image to RGB, as it is stored, and read its boxes.

        Raises:
            UnreadableItem: if the image or its annotation is missing or corrupt, or a box does not lie in the image.
        """
        item = self.items[index]
        image, objects = read_rgb(item.image), self.load_objects(index)
        # COCO's boxes may end a fraction of a pixel outside.
        inside = (objects.boxes >= -1).all() and (objects.boxes <= np.tile(image.size, 2) + 1).all()
        if not inside:
            raise UnreadableItem(
                f"{str(item.annotation)!r} has boxes {objects.boxes.tolist()} for {str(item.image)!r}, which is "
                f"{image.width} x {image.height} pixels; fetch the two again",
                item.annotation,
            )
        return image, objects

    def load_objects(self, index: int) -> ObjectBoxes:
        """Read the boxes alone.

        Raises:
            UnreadableItem: if the annotation is missing or corrupt.
        """
        return self.read_objects(self.items[index])

    def sample(self, count: int, seed: int = 0) -> "BoxData":
        """Keep `count` images, drawn by seed: see `sample_items`."""
        return replace(self, items=sample_items(self.items, count, seed, self.name))


_Item = TypeVar("_Item", SegmentationItem, BoxItem)


def sample_items(items: Sequence[_Item], count: int, seed: int, name: str) -> tuple[_Item, ...]:
    """Draw `count` items by seed, and leave them in their order.

    Those with the smallest hashes of (seed, id) are drawn: the sample depends on no library's random numbers and not
    on the order of the files, and a smaller sample is part of a larger one.

    Raises:
        InputError: if there are not so many.

    Example:
        >>> items = [SegmentationItem(f"{i:03}", Path(f"{i:03}.jpg"), Path(f"{i:03}.png")) for i in range(100)]
        >>> [item.id for item in sample_items(items, 4, seed=0, name="set")]
        ['050', '054', '060', '062']
    """
    if not 1 <= count <= len(items):
        raise InputError(f"cannot sample {count} of the {len(items)} images of {name}; give 1 to {len(items)}")
    hashes = [hashlib.blake2b(f"{seed} {item.id}".encode(), digest_size=16).digest() for item in items]
    drawn = sorted(range(len(items)), key=hashes.__getitem__)[:count]
    return tuple(items[index] for index in sorted(drawn))
