"""Sampling the parameters of a crop's augmentation, separately from applying them to pixels."""

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from skipless.data.multicrop.config import GLOBAL_CROPS, MultiCropConfig

Jitter = Literal["brightness", "contrast", "saturation", "hue"]

_JITTERS: tuple[Jitter, ...] = ("brightness", "contrast", "saturation", "hue")
_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class CropParams:
    """Parameters of a crop's augmentation, in the order of their application.

    Attributes:
        box: the rectangle of the image.
        size: side of the crop after resizing.
        flip: whether to mirror the crop.
        jitter: operations of the colour jitter in their order, with their factors (hue: turns); may be empty.
        grey: whether to convert the crop to grey.
        sigma: standard deviation of the blur in pixels; 0 for none.
        solarise: whether to solarise the crop.
    """

    box: Box
    size: int
    flip: bool = False
    jitter: tuple[tuple[Jitter, float], ...] = ()
    grey: bool = False
    sigma: float = 0.0
    solarise: bool = False


def sample_crop_params(random: Random, height: int, width: int, config: MultiCropConfig) -> list[CropParams]:
    """Sample the parameters of all crops of a `height` x `width` image, global crops first.

    Example:
        >>> draws = sample_crop_params(Random(0), 375, 500, MultiCropConfig())
        >>> [draw.size for draw in draws][:3], draws[0].sigma > 0
        ([224, 224, 96], True)
    """
    return [_sample_crop(random, height, width, config, position) for position in range(len(config.sizes))]


def sample_box(random: Random, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """Sample a box as torchvision's RandomResizedCrop does; if none fits, it is a centred box within the ratio.

    Args:
        random: source of randomness.
        height: height of the image.
        width: width of the image.
        scale: range of the share of the image's area.
        ratio: range of width / height.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = height * width * _uniform(random, *scale)
        aspect = math.exp(_uniform(random, low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(_below(random, height - h + 1), _below(random, width - w + 1), h, w)
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _sample_crop(random: Random, height: int, width: int, config: MultiCropConfig, position: int) -> CropParams:
    is_global = position < GLOBAL_CROPS
    box = sample_box(random, height, width, config.global_scale if is_global else config.local_scale, config.ratio)
    return CropParams(
        box,
        config.sizes[position],
        flip=random.random() < config.flip,
        jitter=_sample_jitter(random, config.jitter) if random.random() < config.jitter_share else (),
        grey=random.random() < config.grey,
        sigma=_uniform(random, *config.blur_sigma) if random.random() < config.blur[min(position, GLOBAL_CROPS)] else 0,
        solarise=position == 1 and random.random() < config.solarise,
    )


def _sample_jitter(random: Random, strengths: tuple[float, ...]) -> tuple[tuple[Jitter, float], ...]:
    """Sample factors around 1, and the hue around 0; sorting by random keys makes every order equally likely."""
    neutral = (1.0, 1.0, 1.0, 0.0)
    drawn: list[tuple[Jitter, float]] = [
        (n, _uniform(random, c - s, c + s)) for n, c, s in zip(_JITTERS, neutral, strengths, strict=True)
    ]
    order = sorted((random.random(), position) for position in range(len(drawn)))
    return tuple(drawn[position] for _, position in order)


def _uniform(random: Random, low: float, high: float) -> float:
    """Sample uniformly. Only `Random.random` is guaranteed to give the same numbers in every version of Python."""
    return low + (high - low) * random.random()


def _below(random: Random, count: int) -> int:
    return int(random.random() * count)
