"""ImageConfig: the images of a recipe, their size and their augmentation."""

from dataclasses import dataclass
from typing import Literal

from skipless.frozen import added

Augmentation = Literal["default", "none", "shift", "imagenet"]

IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES = 1_281_167, 50_000, 1000
"""Numbers of training images, validation images and classes of ImageNet-1k (ILSVRC 2012)."""

# For every channel, in 0 to 1: timm's IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageConfig:
    """Which images to load, at which size, and how to augment them in training.

    Attributes:
        data: `digits`, `fashion`, or a folder: an ImageNet-style one, one of WebDataset shards, or one with
            Fashion-MNIST's idx files; or a pattern of shards, `imagenet-{train-{0000..1281},val-{0000..0049}}.tar`.
        image_size: side of the square images in pixels; None takes the set's own (digits 8, fashion 28, folders 224).
        augmentation: `none`; `shift` (built-in sets only: random shifts by up to `shift` pixels); `imagenet` (folders
            and shards only: random resized crop, mirroring, and the fields below); `default` is `imagenet` for folders
            and shards, and `none` for the built-in sets.
        shift: largest shift in pixels of augmentation `shift`.
        flip: mirror half of the images in augmentation `shift`.
        auto_augment: timm's name of the random augmentation, as `rand-m9-mstd0.5-inc1`; empty for none.
        color_jitter: strength of the colour jitter. With `auto_augment`, timm applies none, as in the paper's recipe.
        erasing: probability that a box of the image is replaced by noise.
        interpolation: interpolation of every resizing.
        crop_ratio: evaluation resizes the short side to `image_size / crop_ratio` (256 for 224), then crops the centre.
        holdout: number of training images that become the validation set, for tuning; the same ones for every seed.
        corrupt_limit: share of the training images that may be unreadable. Each of them is named and replaced by
            another image; one more than the limit stops the run, and 0 stops it at the first.
        classes: names of those to load, whose labels are then their places here; None loads all. Pixels are normalised
            by the whole set's statistics.
    """

    data: str = "digits"
    image_size: int | None = None
    augmentation: Augmentation = "default"
    shift: int = 2
    flip: bool = False
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    erasing: float = 0.25
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop_ratio: float = 0.875
    holdout: int = 0
    corrupt_limit: float = 0.001
    classes: tuple[str, ...] | None = added(None)
