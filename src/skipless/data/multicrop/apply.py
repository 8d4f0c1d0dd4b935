"""Applying an augmentation: crop, flip, colour jitter, grey, blur, solarise, in the published order."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from skipless.data.multicrop.blur import gaussian_blur_
from skipless.data.multicrop.colour import colour_jitter_, to_grey_
from skipless.data.multicrop.config import Mode
from skipless.data.multicrop.fast import apply_colour_matrices, sampled_gaussian_blur_
from skipless.data.multicrop.params import CropParams
from skipless.data.multicrop.planes import LEVELS, PixelScale, crop_and_resize


def augment(
    image: UInt8[Tensor, "h w 3"], draw: CropParams, mode: Mode = "exact", unit: PixelScale = LEVELS
) -> Float32[np.ndarray, "3 s s"]:
    """Make one crop. In mode `exact` and unit `LEVELS`, its values are integers.

    Example:
        >>> from skipless.data.multicrop.params import Box
        >>> image = torch.zeros(20, 30, 3, dtype=torch.uint8)
        >>> augment(image, CropParams(Box(0, 0, 20, 20), size=8)).shape
        (3, 8, 8)
    """
    return augment_all(image, [draw], mode, unit)[0]


def augment_all(
    image: UInt8[Tensor, "h w 3"], draws: Sequence[CropParams], mode: Mode = "exact", unit: PixelScale = LEVELS
) -> list[Float32[np.ndarray, "3 _ _"]]:
    """Make all crops of one image. In mode `fast`, crops of one size share the calls for their colours."""
    if mode == "exact":
        return [_exact(image, draw, unit) for draw in draws]
    groups = [list(group) for _, group in groupby(draws, key=lambda draw: draw.size)]
    return [crop for group in groups for crop in _fast(image, group, unit)]


def _exact(image: UInt8[Tensor, "h w 3"], draw: CropParams, unit: PixelScale) -> Float32[np.ndarray, "3 s s"]:
    planes = crop_and_resize(image, draw).float().numpy()
    colour_jitter_(planes, draw.jitter)
    if draw.grey:
        to_grey_(planes)
    gaussian_blur_(planes, draw.sigma)
    if draw.solarise:
        LEVELS.solarise_(planes)
    return planes if unit is LEVELS else unit.convert_(planes)


def _fast(
    image: UInt8[Tensor, "h w 3"], draws: Sequence[CropParams], unit: PixelScale
) -> list[Float32[np.ndarray, "3 s s"]]:
    crops = torch.stack([crop_and_resize(image, draw) for draw in draws]).float()
    crops = apply_colour_matrices(crops, draws, unit).numpy()
    for crop, draw in zip(crops, draws, strict=True):
        if draw.sigma:
            sampled_gaussian_blur_(crop, draw.sigma)
        if draw.solarise:
            unit.solarise_(crop)
    return list(crops)


def to_pixels(image: Image.Image) -> UInt8[Tensor, "h w 3"]:
    """Copy the pixels of an RGB image."""
    return torch.from_numpy(np.array(image))
