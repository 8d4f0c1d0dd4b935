"""The fast colours: jitter and grey as one affine map of every pixel, clipped once."""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from skipless.data.multicrop.draws import Jitter
from skipless.data.multicrop.planes import Planes, Unit

# YIQ, the colour space of NTSC. A grey has no I and Q; PIL's lightness is Y.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ[1:] -= _YIQ[1:].mean(1, keepdims=True)  # the published digits leave a grey 1e-4 of colour
_RGB = np.linalg.inv(_YIQ)
# What keeps the lightness, what keeps the colour, and what turns the colour by a quarter.
_LIGHT, _COLOUR = np.outer(_RGB[:, 0], _YIQ[0]), _RGB[:, 1:] @ _YIQ[1:]
_QUARTER = np.outer(_RGB[:, 1], _YIQ[2]) - np.outer(_RGB[:, 2], _YIQ[1])  # red to green, as hue grows in HSV
_BLUR_REACH = 3  # taps of the blur, in sigmas


def map_colours(planes: Planes, jitter: tuple[tuple[Jitter, float], ...], grey: bool, unit: Unit) -> Planes:
    """Apply the jitter, the loss of colour and the unit as one affine map, and clip once to what levels can be."""
    if not jitter and not grey:
        return unit.convert_(planes)
    source = torch.from_numpy(planes)
    matrix, shift = colour_map(jitter, grey, source.mean((1, 2)).numpy())
    scale, offset = unit.scale.ravel(), unit.offset.ravel()
    columns = torch.from_numpy((matrix.T * scale).astype(np.float32))[..., None, None]
    mapped = source[0] * columns[0]
    mapped.addcmul_(source[1], columns[1]).addcmul_(source[2], columns[2])
    shifts, lowest, highest = scale * np.float32(shift) - offset, -offset, 255 * scale - offset
    for plane, add, low, high in zip(mapped, shifts.tolist(), lowest.tolist(), highest.tolist(), strict=True):
        plane.add_(add).clamp_(low, high)  # by planes: with one bound per channel the clamp is not vectorised
    return mapped.numpy()


def colour_map(
    jitter: tuple[tuple[Jitter, float], ...], grey: bool, mean: Float[np.ndarray, "3"]
) -> tuple[Float64[np.ndarray, "3 3"], float]:
    """Compose the operations: (matrix, shift) of the map x -> matrix x + shift of levels.

    In YIQ all of them are of one kind: lightness Y becomes a Y + b, and the colours (I, Q) are scaled and turned.

    Args:
        jitter: operations with their factors, in order.
        grey: whether the colour goes in the end.
        mean: of every channel before, which contrast needs.

    Example:
        >>> matrix, shift = colour_map((("contrast", 0.5),), False, np.array([100.0, 100.0, 100.0]))
        >>> (matrix @ [100, 120, 80] + shift).round(6).tolist()
        [100.0, 110.0, 90.0]
    """
    light, shift, colour, angle = 1.0, 0.0, 1.0, 0.0
    mean_light = float(_YIQ[0] @ mean)
    for name, amount in jitter:
        if name == "hue":
            angle += 2 * math.pi * amount
            continue
        colour *= amount
        if name == "brightness":
            light, shift = amount * light, amount * shift
        elif name == "contrast":
            shift = amount * shift + (1 - amount) * (light * mean_light + shift)
            light *= amount
    if grey:
        return light * _LIGHT, shift
    return light * _LIGHT + colour * math.cos(angle) * _COLOUR + colour * math.sin(angle) * _QUARTER, shift


def blur_once(planes: Planes, sigma: float) -> Planes:
    """Blur by a sampled Gaussian along each axis; beyond the border the outermost level goes on.

    Example:
        >>> spot = np.pad(np.ones((3, 1, 1), np.float32), ((0, 0), (0, 0), (2, 2)))
        >>> [f"{level:.3f}" for level in blur_once(spot, 0.5)[0, 0]]
        ['0.000', '0.106', '0.787', '0.106', '0.000']
    """
    reach = round(_BLUR_REACH * sigma)
    if reach == 0:
        return planes
    taps = [math.exp(-((offset / sigma) ** 2) / 2) for offset in range(-reach, reach + 1)]
    weights = [tap / sum(taps) for tap in taps]
    _, height, width = planes.shape
    wide, tall = torch.empty(3, height, width + 2 * reach), torch.empty(3, height + 2 * reach, width)
    wide.narrow(2, reach, width).copy_(torch.from_numpy(planes))
    _filter(wide, 2, weights, out=tall.narrow(1, reach, height))
    _filter(tall, 1, weights, out=torch.from_numpy(planes))
    return planes


def _filter(padded: Tensor, dim: int, weights: list[float], out: Tensor) -> None:
    """Sum the weighted neighbours along one axis; the margins are filled first."""
    reach, size = len(weights) // 2, out.shape[dim]
    padded.narrow(dim, 0, reach).copy_(padded.narrow(dim, reach, 1))
    padded.narrow(dim, reach + size, reach).copy_(padded.narrow(dim, reach + size - 1, 1))
    torch.mul(padded.narrow(dim, 0, size), weights[0], out=out)
    for offset, weight in enumerate(weights[1:], 1):
        out.add_(padded.narrow(dim, offset, size), alpha=weight)
