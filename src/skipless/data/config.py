"""Which images: the description that a recipe holds of its data."""

from dataclasses import dataclass
from typing import Literal

Augmentation = Literal["default", "none", "shift", "imagenet"]

IMAGENET_TRAIN, IMAGENET_VAL, IMAGENET_CLASSES = 1_281_167, 50_000, 1000
"""Images and classes of ImageNet-1k (ILSVRC 2012)."""

# Of every channel, 0 to 1: what models of photos are trained on (timm's IMAGENET_DEFAULT_MEAN and _STD).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageConfig:
    """Which images, at what size, and how they are augmented in training.

    Attributes:
        data: `digits`, `fashion`, or a folder: an ImageNet-style one, one of WebDataset shards, or one with
            Fashion-MNIST's idx files; or a pattern of shards, `imagenet-{train-{0000..1281},val-{0000..0049}}.tar`.
        image_size: side of the square crop in pixels; None is the set's own (digits 8, fashion 28, folders 224).
        augmentation: `none`; `shift` (built-in sets: shifted by up to `shift` pixels); `imagenet` (folders: random
            resized crop, mirroring, and the fields below); `default` is `imagenet` for folders, else `none`.
        shift: pixels, for `shift`.
        flip: mirror half of the images, for `shift`.
        auto_augment: timm's description of the random augmentation; empty for none.
        color_jitter: strength; timm leaves the jitter out where it augments at random, as did the paper's recipe.
        erasing: probability that a box of the image is replaced by pixel noise.
        interpolation: of every resampling.
        crop_ratio: evaluation resizes the short side to `image_size / crop_ratio` (256 for 224), then crops the centre.
        holdout: so many training images, the same ones for every seed, become the validation set: for tuning.
        corrupt_limit: share of the training images that may be unreadable; each is named and replaced by another one,
            and one more than that stops the run. 0 stops at the first.
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
