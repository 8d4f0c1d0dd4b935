"""One crop from its draw: cut, flip, jitter, grey, blur, solarise, in the published order."""

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from skipless.data.multicrop.blur import blur_
from skipless.data.multicrop.colour import grey_, jitter_
from skipless.data.multicrop.config import Mode
from skipless.data.multicrop.draws import CropDraw
from skipless.data.multicrop.fast import blur_once, map_colours
from skipless.data.multicrop.planes import LEVELS, Unit, cut_planes


def augment(
    image: UInt8[Tensor, "h w 3"], draw: CropDraw, mode: Mode = "exact", unit: Unit = LEVELS
) -> Float32[np.ndarray, "3 s s"]:
    """Make one crop; in levels they are whole ones where the mode is exact.

    Example:
        >>> from skipless.data.multicrop.draws import Box
        >>> image = torch.zeros(20, 30, 3, dtype=torch.uint8)
        >>> augment(image, CropDraw(Box(0, 0, 20, 20), size=8)).shape
        (3, 8, 8)
    """
    planes = cut_planes(image, draw)
    if mode == "fast":
        planes = map_colours(planes, draw.jitter, draw.grey, unit)
        planes = blur_once(planes, draw.sigma) if draw.sigma else planes
        return unit.solarise_(planes) if draw.solarise else planes
    jitter_(planes, draw.jitter)
    if draw.grey:
        grey_(planes)
    blur_(planes, draw.sigma)
    if draw.solarise:
        LEVELS.solarise_(planes)
    return planes if unit is LEVELS else unit.convert_(planes)


def to_pixels(image: Image.Image) -> UInt8[Tensor, "h w 3"]:
    """Copy an RGB image's pixels."""
    return torch.from_numpy(np.array(image))
