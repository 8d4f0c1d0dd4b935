"""Colour jitter as torchvision applies it to PIL images, on float32 planes of integer levels.

As in PIL, the result of every operation is clipped to 0 to 255 and truncated to integers. float32 gives the same
results as PIL's C code. For the hue, the rounding of PIL's HSV is tabulated by calling PIL.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32
from PIL import Image

from skipless.data.multicrop.params import Jitter
from skipless.data.multicrop.planes import Planes

# PIL's weights of the luma (ITU-R 601-2), in units of 1/65536; every sum of them below is exact in float32.
LUMA_WEIGHTS = (19595, 38470, 7471)

_HUES = 6 * 255 + 1  # number of hues of 8-bit colours with the largest chroma
_SECTOR = 85  # doubled hue levels of one of the 6 sectors of a turn (510)


def colour_jitter_(planes: Planes, jitter: tuple[tuple[Jitter, float], ...]) -> Planes:
    """Apply operations in the given order."""
    operations = {
        "brightness": adjust_brightness_,
        "contrast": adjust_contrast_,
        "saturation": adjust_saturation_,
        "hue": adjust_hue_,
    }
    for name, amount in jitter:
        operations[name](planes, amount)
    return planes


def adjust_brightness_(planes: Planes, factor: float) -> Planes:
    """Scale every level: 0 gives black, 1 the same image."""
    return _levels_(np.multiply(planes, np.float32(factor), out=planes))


def adjust_contrast_(planes: Planes, factor: float) -> Planes:
    """Scale the distance of every level from the mean luma, which PIL rounds."""
    return _scale_from_(planes, np.float32(mean_luma(planes)), factor)


def adjust_saturation_(planes: Planes, factor: float) -> Planes:
    """Scale the distance of every level from the luma of its pixel: 0 gives a grey image."""
    return _scale_from_(planes, luma(planes), factor)


def to_grey_(planes: Planes) -> Planes:
    """Replace every channel by the luma."""
    planes[:] = luma(planes)
    return planes


def luma(planes: Planes) -> Float32[np.ndarray, "h w"]:
    """Return the weighted mean of the channels in integer levels."""
    light, part = np.multiply(planes[0], np.float32(LUMA_WEIGHTS[0])), np.empty_like(planes[0])
    for plane, weight in zip(planes[1:], LUMA_WEIGHTS[1:], strict=True):
        np.add(light, np.multiply(plane, np.float32(weight), out=part), out=light)
    np.add(light, np.float32(0x8000), out=light)
    np.multiply(light, np.float32(1 / 0x10000), out=light)
    return np.floor(light, out=light)


def mean_luma(planes: Planes) -> int:
    """Return the mean luma, rounded to a level. The sums of rows of integer levels are exact in float32."""
    light = luma(planes)
    return int(light.sum(1).sum(dtype=np.float64) / light.size + 0.5)


def adjust_hue_(planes: Planes, turns: float) -> Planes:
    """Shift the hue: convert RGB to PIL's 8-bit HSV, add to the hue in integer levels modulo 256, and convert back.

    A channel c of the result is V - V S w_c(H). The weight w_c is 0 around the channel's own hue, 1 on the opposite
    side, and linear in between. V S is a table over (V, chroma), and H is a table over (chroma, position in the turn).
    """
    red, green, blue = levels = planes.astype(np.int16)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = np.subtract(value, np.minimum(np.minimum(red, green), blue))
    hues, strengths = _hue_table(), _strength_table()
    hue = hues.take(chroma.astype(np.intp) * _HUES + _position(levels, value, chroma))
    # numpy's cast wraps modulo 256, as torchvision's does, although a turn has 255 levels in torchvision
    doubled = (hue + np.int32(turns * 255).astype(np.uint8)).astype(np.int16) * np.int16(2)
    strength = strengths.take((value.astype(np.uint16) << np.uint16(8)) + chroma.astype(np.uint16))
    top = value + np.float32(0.5)
    for plane, (centre, sign, offset) in zip(planes, ((255, -1, 170), (170, 1, -85), (340, 1, -85)), strict=True):
        weight = np.abs(doubled - np.int16(centre)) * np.int16(sign) + np.int16(offset)
        np.multiply(np.clip(weight, 0, _SECTOR, out=weight), strength, out=plane)
        np.floor(np.subtract(top, plane, out=plane), out=plane)
    return planes


def _position(levels: np.ndarray, value: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Return the integer 6 chroma (hue + 1/6): the largest channel, then the difference of the other two.

    The largest channel is selected by arithmetic, since masked copies are several times slower. At ties, PIL takes red
    before green before blue.
    """
    red, green, blue = levels
    position = red - green + chroma * np.int16(5)
    position += (green == value) * (blue - red + chroma * np.int16(3) - position)
    position += (red == value) * (green - blue + chroma - position)
    return position


@cache
def _hue_table() -> np.ndarray:
    """Tabulate PIL's hue over (chroma, position), by converting one colour of each with PIL."""
    chroma, position = np.meshgrid(np.arange(256), np.arange(_HUES), indexing="ij")
    sector = np.where(chroma > 0, position // np.maximum(2 * chroma, 1), 0).clip(0, 2)  # largest: red, green, blue
    # If two channels are largest, PIL takes the earlier one, so the border belongs to the previous sector.
    sector -= (position == sector * 2 * chroma) & (sector > 0)
    difference = position - (2 * sector + 1) * chroma
    valid = np.abs(difference) <= chroma
    largest, above, below = chroma, (difference.clip(0, None)), (-difference).clip(0, None)
    after = np.where(valid, above, 0)  # the channel after the largest one, if it exceeds the smallest
    before = np.where(valid, below, 0)
    rgb = np.stack([np.choose((channel - sector) % 3, [largest, after, before]) for channel in range(3)], -1)
    hsv = Image.fromarray(rgb.astype(np.uint8)).convert("HSV")
    return np.ascontiguousarray(np.asarray(hsv)[..., 0]).ravel()


@cache
def _strength_table() -> np.ndarray:
    """Tabulate V S / 85 over (V, chroma), with PIL's S."""
    value, chroma = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    rest = (value - chroma).clip(0, None)
    hsv = Image.fromarray(np.stack([value, rest, rest], -1).astype(np.uint8)).convert("HSV")
    return (value * np.asarray(hsv)[..., 1] / (255 * _SECTOR)).astype(np.float32).ravel()


def _scale_from_(planes: Planes, base: np.ndarray | np.float32, factor: float) -> Planes:
    """Compute base + factor (x - base) in the order of PIL's `blend`."""
    np.subtract(planes, base, out=planes)
    np.multiply(planes, np.float32(factor), out=planes)
    return _levels_(np.add(planes, base, out=planes))


def _levels_(planes: Planes) -> Planes:
    return np.floor(np.clip(planes, 0, 255, out=planes), out=planes)
