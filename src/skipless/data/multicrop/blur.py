"""PIL's Gaussian blur: three box blurs along each axis, with fractional box widths (Gwosdek 2011)."""

import math

import torch
from torch import Tensor

from skipless.data.multicrop.planes import Planes

_PASSES = 3  # PIL's
_HALF = torch.tensor(0.5)


def gaussian_blur_(planes: Planes, sigma: float) -> Planes:
    """Blur in place; as in PIL, the border is replicated before every pass.

    Levels are rounded after every pass, as in PIL, which undoes most of the blur at a small sigma. If the weights are
    simple fractions (at sigma 1/2, 1 and 2), a tie may be rounded differently than in PIL.

    Args:
        planes: integer levels.
        sigma: standard deviation in pixels; 0 leaves the planes as they are.
    """
    if sigma == 0:
        return planes
    radius, edge = _box_kernel(sigma)
    margin = radius + 1
    _, height, width = planes.shape
    padded = torch.empty(3, height + 2 * margin, width + 2 * margin)
    rows, columns = padded[:, margin : margin + height], padded[..., margin : margin + width]
    inner = columns[:, margin : margin + height]
    inner.copy_(torch.from_numpy(planes))
    for dim, part in ((2, rows), (1, columns)):
        _box_blurs_(part, dim, radius, edge)
    torch.from_numpy(planes).copy_(inner)
    return planes


def _box_kernel(sigma: float) -> tuple[int, float]:
    """Return the integer radius of one box, and the relative weight of the two levels just beyond it."""
    variance = sigma**2 / _PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return whole, part


def _box_blurs_(padded: Tensor, dim: int, radius: int, edge: float) -> None:
    """Blur one axis with the box of every pass; the margins are filled before each pass."""
    margin = radius + 1
    size = padded.shape[dim] - 2 * margin
    before, after = padded.narrow(dim, 0, margin), padded.narrow(dim, margin + size, margin)
    first, last = padded.narrow(dim, margin, 1), padded.narrow(dim, margin + size - 1, 1)
    outer, *inside = (
        (padded.narrow(dim, margin - offset, size), padded.narrow(dim, margin + offset, size))
        for offset in range(margin, 0, -1)
    )
    centre = padded.narrow(dim, margin, size)
    total, weight = torch.empty_like(centre), 1 / (2 * radius + 1 + 2 * edge)
    for _ in range(_PASSES):
        before.copy_(first)
        after.copy_(last)
        torch.add(*outer, out=total)
        torch.add(centre, total, alpha=edge, out=total)
        for left, right in inside:
            total.add_(left).add_(right)
        torch.floor(torch.add(_HALF, total, alpha=weight, out=total), out=centre)
