"""load_images: built-in sets, folders and shards, ready for training and evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skipless.data.augmentation import PhotoTransform, photo_transform
from skipless.data.builtin import find_fashion, load_digits, load_fashion
from skipless.data.config import IMAGENET_MEAN, IMAGENET_STD, ImageConfig
from skipless.data.folder import FolderFiles, scan_split
from skipless.data.image_source import ImageSource
from skipless.data.memory import MemoryImages
from skipless.data.on_disk import StoredImages
from skipless.data.shards import Shards, find_shards, index_shards
from skipless.data.shards.write import read_classes
from skipless.display import Record, Table
from skipless.display.axes import legend, lines_by_name
from skipless.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 20  # classes in the table of a set


@dataclass(frozen=True, eq=False, repr=False)
class ImageData(Record):
    """A training and a validation set that share classes and shape.

    Attributes:
        train: training set, augmented as configured.
        val: validation set, never augmented.
        classes: names of the classes; a label is an index into them.
        channels: 1 (grey) or 3 (RGB).
        image_size: side of the square images in pixels.
    """

    train: MemoryImages | StoredImages
    val: MemoryImages | StoredImages
    classes: tuple[str, ...]
    channels: int
    image_size: int

    def _summary(self) -> str:
        sizes = f"{len(self.train):,} training and {len(self.val):,} validation images"
        return f"{sizes}, {len(self.classes)} classes, {self.channels} x {self.image_size} x {self.image_size}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each class."""
        train, val = (split.labels.bincount(minlength=len(self.classes)).tolist() for split in (self.train, self.val))
        rows = [(name, str(a), str(b)) for name, a, b in zip(self.classes[:_SHOWN], train, val, strict=False)]
        more = [f"{len(self.classes) - _SHOWN} more classes"] if len(self.classes) > _SHOWN else []
        return (Table(("class", "training", "validation"), rows, self._summary(), more, align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        counts = {"training": self.train, "validation": self.val}
        series = {name: split.labels.bincount(minlength=len(self.classes)).tolist() for name, split in counts.items()}
        lines_by_name(axes, self.classes, series, "images", "class")
        axes.set_ylim(bottom=0)
        legend(axes)


def load_images(config: ImageConfig) -> ImageData:
    """Load the images of a config.

    Raises:
        InputError: if the data is missing or corrupt, the augmentation does not apply to it, or it has no such class.

    Example:
        >>> data = load_images(ImageConfig(data="digits"))
        >>> len(data.train), len(data.val), len(data.classes), data.channels, data.image_size
        (1397, 400, 10, 1, 8)
        >>> load_images(ImageConfig(data="digits", classes=("8", "9"))).classes
        ('8', '9')
    """
    if config.image_size is not None and config.image_size < 1:
        raise InputError(f"image_size {config.image_size} is no size; give pixels, or leave it out for the set's own")
    if not 0 <= config.corrupt_limit < 1:
        raise InputError(f"corrupt_limit {config.corrupt_limit} is no share of the training images; give 0 to below 1")
    data = _load_named(config)
    data = data if config.classes is None else _of_classes(data, config.classes)
    return data if config.holdout == 0 else _hold_out(data, config.holdout)


def relabelled(data: ImageData, classes: Sequence[str]) -> ImageData:
    """Return the same images with the labels of a model that was trained on other classes.

    Classes are matched by name, so the data may have them in another order, or only some of them. If one side has
    numbers in place of names (shards without a `classes.txt`), a number is a label.

    Args:
        data: the images.
        classes: names of all classes of the model.

    Raises:
        InputError: if the data has a class that the model does not.

    Example:
        >>> words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        >>> digits = replace(load_images(ImageConfig(data="digits")), classes=words)
        >>> digits.val.labels[:3], relabelled(digits, sorted(words)).val.labels[:3]
        (tensor([2, 7, 4]), tensor([8, 5, 2]))
    """
    numbered = any(names == tuple(map(str, range(len(names)))) for names in (data.classes, tuple(classes)))
    known = tuple(map(str, range(len(classes)))) if numbered else tuple(classes)
    own = tuple(map(str, range(len(data.classes)))) if numbered else data.classes
    place = {name: label for label, name in enumerate(known)}
    if unknown := [name for name in own if name not in place]:
        raise InputError(
            f"{len(unknown)} of the data's {len(own)} classes (first: {unknown[0]!r}) are none of the {len(known)} "
            f"that the model has learned ({known[0]!r} to {known[-1]!r}); give images of those"
        )
    label = torch.tensor([place[name] for name in own])
    train, val = (replace(part, labels=label[part.labels]) for part in (data.train, data.val))
    return replace(data, train=train, val=val, classes=tuple(classes))


def pixel_statistics(config: ImageConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel by which images are normalised, for pixels in 0 to 1.

    Example:
        >>> pixel_statistics(ImageConfig("imagenet/"))
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    if config.data not in ("digits", "fashion") and (
        find_shards(config.data) is not None or find_fashion(Path(config.data).expanduser()) is None
    ):
        return IMAGENET_MEAN, IMAGENET_STD
    train = load_images(config).train
    assert isinstance(train, MemoryImages)
    return tuple((train.mean / 255).tolist()), tuple((train.std / 255).tolist())


def _load_named(config: ImageConfig) -> ImageData:
    folder = Path(config.data).expanduser()
    if config.data == "digits":
        return _in_memory(config, *load_digits())
    if config.data == "fashion":
        return _in_memory(config, *load_fashion())
    if (shards := find_shards(config.data)) is not None:
        return _from_shards(config, shards)
    if not folder.is_dir():
        near = did_you_mean(config.data, ("digits", "fashion")).rstrip()
        raise InputError(
            f"no data {config.data!r}: neither 'digits' nor 'fashion', nor an existing folder, nor shards (.tar)"
            f"{near and f'; {near}'}"
        )
    if find_fashion(folder) is not None:
        return _in_memory(config, *load_fashion(folder))
    return _from_folder(config, folder)


def _of_classes(data: ImageData, classes: tuple[str, ...]) -> ImageData:
    """The images of some classes, numbered in the order of their names here."""
    unknown = next((name for name in classes if name not in data.classes), None)
    if unknown is not None or not classes or len(set(classes)) < len(classes):
        near = "" if unknown is None else did_you_mean(unknown, data.classes)
        raise InputError(f"classes {classes}: {near}give some of {data.classes}, each once")
    label = torch.full((len(data.classes),), -1)
    label[[data.classes.index(name) for name in classes]] = torch.arange(len(classes))
    train, val = (_part(part, (label[part.labels] >= 0).nonzero()[:, 0], label) for part in (data.train, data.val))
    return replace(data, train=train, val=val, classes=classes)


def _part(images: MemoryImages | StoredImages, kept: Tensor, label: Tensor) -> MemoryImages | StoredImages:
    """Some of the images, with other labels."""
    labels = label[images.labels[kept]]
    if isinstance(images, MemoryImages):
        return replace(images, images=images.images[kept], labels=labels)
    return replace(images, source=images.source.subset(kept), labels=labels)


def _hold_out(data: ImageData, count: int) -> ImageData:
    """Hold out `count` training images, the same for every seed, as the validation set, which is not augmented."""
    train, val = data.train, data.val
    if not 0 < count < len(train):
        raise InputError(f"holdout {count} does not leave a part of {len(train)} training images; give less")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held, rest = order[:count], order[count:]
    if isinstance(train, MemoryImages) and isinstance(val, MemoryImages):
        val = replace(val, images=train.images[held], labels=train.labels[held])
        train = replace(train, images=train.images[rest], labels=train.labels[rest])
    elif isinstance(train, StoredImages) and isinstance(val, StoredImages):
        val = replace(
            train, source=train.source.subset(held), labels=train.labels[held], transform=val.transform, corrupt_limit=0
        )
        train = replace(train, source=train.source.subset(rest), labels=train.labels[rest])
    return replace(data, train=train, val=val)


def _in_memory(config: ImageConfig, train: MemoryImages, val: MemoryImages, classes: tuple[str, ...]) -> ImageData:
    if config.augmentation == "imagenet":
        raise InputError(
            f"augmentation 'imagenet' is for folders of images, not {config.data!r}; use 'shift' or 'none'"
        )
    size = config.image_size or train.images.shape[-1]
    train, val = train.resized(size), val.resized(size)
    if config.augmentation == "shift":
        train = MemoryImages(train.images, train.labels, train.mean, train.std, config.shift, config.flip)
    return ImageData(train, val, classes, channels=train.images.shape[1], image_size=size)


def _from_folder(config: ImageConfig, folder: Path) -> ImageData:
    classes, train_files, train_labels = scan_split(folder / "train")
    val_classes, val_files, val_labels = scan_split(folder / "val")
    if classes != val_classes:
        raise InputError(
            f"{folder / 'train'} and {folder / 'val'} differ in classes: {_difference(classes, val_classes)}"
        )
    train, val = FolderFiles(folder / "train", train_files), FolderFiles(folder / "val", val_files)
    return _on_disk(config, classes, (train, train_labels), (val, val_labels))


def _from_shards(config: ImageConfig, shards: Shards) -> ImageData:
    parts = {}
    for split in ("train", "val"):
        of_split = shards.split(split)
        if not of_split.files:
            raise InputError(
                f"no shard of {shards.named!r} says {split!r} in its name or its folder's; name them "
                f"{split}-000000.tar and so on (a pattern for both: '{{train-{{000..123}},val-{{000..009}}}}.tar')"
            )
        parts[split] = index_shards(of_split)
    (train, train_labels), (val, val_labels) = parts["train"], parts["val"]
    count = int(max(train_labels.max(), val_labels.max())) + 1
    if count > len(train):
        raise InputError(
            f"the labels of {shards.named!r} go up to {count - 1}, but there are only {len(train)} training images; "
            "number the classes from 0 on"
        )
    return _on_disk(config, read_classes(shards.root, count), (train, train_labels), (val, val_labels))


def _on_disk(
    config: ImageConfig,
    classes: tuple[str, ...],
    train: tuple[ImageSource, Tensor],
    val: tuple[ImageSource, Tensor],
) -> ImageData:
    if config.augmentation == "shift":
        raise InputError("augmentation 'shift' is for the built-in sets; folders and shards take 'imagenet' or 'none'")
    size = config.image_size or 224
    augmented = _transform(config, size, augmented=config.augmentation != "none")
    return ImageData(
        StoredImages(*train, augmented, corrupt_limit=int(config.corrupt_limit * len(train[0]))),
        StoredImages(*val, _transform(config, size, augmented=False)),
        classes,
        channels=3,
        image_size=size,
    )


def _transform(config: ImageConfig, size: int, augmented: bool) -> PhotoTransform:
    return photo_transform(
        size,
        augmented=augmented,
        auto_augment=config.auto_augment,
        color_jitter=config.color_jitter,
        erasing=config.erasing,
        interpolation=config.interpolation,
        crop_ratio=config.crop_ratio,
    )


def _difference(train: tuple[str, ...], val: tuple[str, ...]) -> str:
    only = {"train": sorted(set(train) - set(val)), "val": sorted(set(val) - set(train))}
    parts = [
        f"only in {split}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for split, names in only.items()
        if names
    ]
    return "; ".join(parts)
