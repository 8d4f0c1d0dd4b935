"""Images with masks or boxes, independent of the layout that they come from."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt8
from PIL import Image

from skipless.data.dense.reading import UnreadableItem, image_size, read_rgb
from skipless.display import Record, Table
from skipless.display.values import counted, few_words
from skipless.errors import InputError

IGNORE = 255  # label of a loaded mask, for every layout: the pixel is not scored


@dataclass(frozen=True)
class SegmentationItem:
    """The files of one image and its mask.

    Attributes:
        id: the image's name without its extension; its whole path below the folder if others have the same name.
        image: the image.
        mask: the mask.
    """

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationData(Record):
    """One split of a set for semantic segmentation.

    Attributes:
        name: name of the set and its classes, for tables.
        split: name of the split.
        classes: names of the classes; a label is an index into them.
        items: the images, in the order of the set's list, or by name if it has none.
        read_ids: reads the ids in a mask file.
        labels_of: label of every id: an index into `classes`, `IGNORE`, or -1 if no mask may have the id.
        ignore: label of the pixels that are not scored.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    items: tuple[SegmentationItem, ...]
    read_ids: Callable[[Path], np.ndarray]
    labels_of: Int16[np.ndarray, " ids"]
    ignore: int = IGNORE

    def _summary(self) -> str:
        return f"{self.name}, {self.split}, {len(self):,} images with masks"

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> tuple[Image.Image, UInt8[np.ndarray, "h w"]]:
        """Decode one image to RGB, and its mask to labels.

        EXIF orientation is not applied: the masks belong to the pixels as they are stored.

        Raises:
            UnreadableItem: if a file is missing or corrupt, the two differ in size, or the mask has an id that belongs
                to no class.
        """
        return self.load_image(index), self.load_mask(index)

    def load_image(self, index: int) -> Image.Image:
        """Decode only the image, to RGB.

        Raises:
            UnreadableItem: if it is missing or corrupt.
        """
        return read_rgb(self.items[index].image)

    def load_mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Decode only the mask, to labels: indices into `classes`, or `ignore`.

        Raises:
            UnreadableItem: as `load`, except for an image that cannot be read.
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
        size = image_size(item.image)  # None if the image cannot be read, which is another matter
        if size is not None and size != (width, height):
            raise UnreadableItem(
                f"{str(item.mask)!r} is {width} x {height} pixels, its image {str(item.image)!r} {size[0]} x {size[1]}"
                "; fetch the two again",
                item.mask,
            )

    def sample(self, count: int, seed: int = 0) -> "SegmentationData":
        """Return a set of `count` images, drawn by seed; see `sample_items`."""
        return replace(self, items=sample_items(self.items, count, seed, self.name))


@dataclass(frozen=True)
class BoxItem:
    """The files of one image and its annotation.

    Attributes:
        id: the image's name without its extension; its whole path below the folder if others have the same name.
        image: the image.
        annotation: the file that says which objects it shows.
    """

    id: str
    image: Path
    annotation: Path


@dataclass(frozen=True, eq=False, repr=False)
class ObjectBoxes(Record):
    """The annotated objects of one image.

    Attributes:
        boxes: xmin, ymin, xmax, ymax in pixels from 0. The maxima are exclusive: the width is xmax - xmin.
        classes: name of every object's class, as in the annotation.
        difficult: VOC's flag "difficult" for every object; False for COCO.
        truncated: VOC's flag "truncated" for every object; False for COCO.
    """

    boxes: Int64[np.ndarray, "n 4"]
    classes: tuple[str, ...]
    difficult: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]

    def _summary(self) -> str:
        return f"{counted(len(self), 'object')}: {', '.join(dict.fromkeys(self.classes)) or 'none'}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each object."""
        rows = [
            (name, *map(str, box), few_words(bool(hard)), few_words(bool(cut)))
            for name, box, hard, cut in zip(
                self.classes, self.boxes.tolist(), self.difficult, self.truncated, strict=True
            )
        ]
        head = ("class", "xmin", "ymin", "xmax", "ymax", "difficult", "truncated")
        return (Table(head, rows, "pixels from 0, maxima exclusive", align="lrrrrll"),)

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, chosen: Bool[np.ndarray, " n"]) -> "ObjectBoxes":
        """Return the chosen objects only."""
        classes = tuple(name for name, kept in zip(self.classes, chosen, strict=True) if kept)
        return ObjectBoxes(self.boxes[chosen], classes, self.difficult[chosen], self.truncated[chosen])


@dataclass(frozen=True, eq=False, repr=False)
class BoxData(Record):
    """One split of a set for object discovery.

    An image may have no box (VOC without its difficult objects, COCO's crowds); it is then not scored.

    Attributes:
        name: name of the set and its conventions, for tables.
        split: name of the split.
        items: the images, in the order of the set's list.
        read_objects: reads the objects of an item.
    """

    name: str
    split: str
    items: tuple[BoxItem, ...]
    read_objects: Callable[[BoxItem], ObjectBoxes]

    def _summary(self) -> str:
        return f"{self.name}, {self.split}, {len(self):,} images with boxes"

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> tuple[Image.Image, ObjectBoxes]:
        """Decode one image to RGB, without EXIF orientation, and read its boxes.

        Raises:
            UnreadableItem: if the image or its annotation is missing or corrupt, or a box does not lie in the image or
                ends before it starts.
        """
        item = self.items[index]
        image, objects = read_rgb(item.image), self.load_objects(index)
        # COCO's boxes may extend a fraction of a pixel beyond the image.
        inside = (objects.boxes >= -1).all() and (objects.boxes <= np.tile(image.size, 2) + 1).all()
        if not inside or (objects.boxes[:, :2] > objects.boxes[:, 2:]).any():
            raise UnreadableItem(
                f"{str(item.annotation)!r} has boxes {objects.boxes.tolist()} for {str(item.image)!r}, which is "
                f"{image.width} x {image.height} pixels; fetch the two again",
                item.annotation,
            )
        return image, objects

    def load_objects(self, index: int) -> ObjectBoxes:
        """Read only the boxes.

        Raises:
            UnreadableItem: if the annotation is missing or corrupt.
        """
        return self.read_objects(self.items[index])

    def sample(self, count: int, seed: int = 0) -> "BoxData":
        """Return a set of `count` images, drawn by seed; see `sample_items`."""
        return replace(self, items=sample_items(self.items, count, seed, self.name))


_Item = TypeVar("_Item", SegmentationItem, BoxItem)


def sample_items(items: Sequence[_Item], count: int, seed: int, name: str) -> tuple[_Item, ...]:
    """Draw `count` items by seed, and keep their order.

    The items with the smallest hashes of (seed, id) are drawn. The sample thus depends neither on a library's random
    numbers nor on the order of the files, and a smaller sample is a subset of a larger one.

    Raises:
        InputError: if there are fewer than `count` items.

    Example:
        >>> items = [SegmentationItem(f"{i:03}", Path(f"{i:03}.jpg"), Path(f"{i:03}.png")) for i in range(100)]
        >>> [item.id for item in sample_items(items, 4, seed=0, name="set")]
        ['050', '054', '060', '062']
    """
    if not 1 <= count <= len(items):
        raise InputError(f"cannot sample {count} of the {len(items)} images of {name}; give 1 to {len(items)}")
    hashes = [
        hashlib.blake2b(f"{seed} {item.id}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
        for item in items
    ]
    drawn = sorted(range(len(items)), key=hashes.__getitem__)[:count]
    return tuple(items[index] for index in sorted(drawn))
