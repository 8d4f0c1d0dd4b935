"""The grids that numbers are rounded to, and what the rounding costs: signal over quantisation noise.

A grid is uniform and reaches from the smallest to the largest number (round to nearest, min-max). A symmetric one has
the integers -(2^(b-1) - 1) to 2^(b-1) - 1, and the scale max|x| / (2^(b-1) - 1). An asymmetric one has 2^b integers
from min(x, 0) to max(x, 0), of which one stands for 0 exactly.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError

Per = Literal["tensor", "channel", "token"]
FEWEST, MOST = 2, 8  # bits: int8 at most, so that sums of products are exact


class Grid(NamedTuple):
    """A uniform grid. Integers are counted from the one that stands for 0.

    Attributes:
        scale: the step, one for all or one for each row or column; broadcasts against what is rounded.
        low, high: least and largest integer.
    """

    scale: Tensor
    low: Tensor
    high: Tensor

    def integers(self, x: Tensor) -> Tensor:
        """The nearest integers, as floats."""
        return torch.minimum(torch.maximum((x / self.scale).round(), self.low), self.high)

    def rounded(self, x: Tensor) -> Tensor:
        """The nearest numbers of the grid."""
        return self.integers(x) * self.scale


def grid_of_range(low: Tensor, high: Tensor, bits: int, *, symmetric: bool = True) -> Grid:
    """The grid that reaches from `low` to `high`, each of which may be a number or one for each row or column."""
    if symmetric:
        most = 2 ** (bits - 1) - 1
        scale = _step(torch.maximum(low.abs(), high.abs()), most)
        top = torch.full((), float(most), dtype=scale.dtype, device=scale.device)
        return Grid(scale, -top, top)
    low, high = low.clamp(max=0), high.clamp(min=0)
    most = 2**bits - 1
    scale = _step(high - low, most)
    below = (low / scale).round().clamp(min=-most)
    return Grid(scale, below, below + most)


def _step(width: Tensor, most: int) -> Tensor:
    """A step that is never 0: where there are zeros alone, any is right."""
    step = width / most
    return torch.where(step == 0, torch.ones_like(step), step)


def grid_of(x: Tensor, bits: int, per: Per, *, symmetric: bool = True) -> Grid:
    """The grid of some numbers, the last of whose dimensions are channels."""
    return grid_of_range(*_range_of(x, per), bits, symmetric=symmetric)


def _range_of(x: Tensor, per: Per) -> tuple[Tensor, Tensor]:
    every = tuple(range(x.ndim))
    dims = {"tensor": every, "channel": every[:-1], "token": every[-1:]}[per]
    return x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)


def rounding_noise(x: Tensor, bits: Sequence[int], per: Per, *, symmetric: bool = True) -> list[Tensor]:
    """Sums of squares, in float64, of what rounding changes numbers by; one for each number of bits."""
    low, high = _range_of(x, per)
    found = []
    for one in bits:
        grid = grid_of_range(low, high, one, symmetric=symmetric)
        error = (x / grid.scale).round_()
        if not symmetric:  # no number is beyond the ends of a symmetric grid of its own range
            error.clamp_(grid.low, grid.high)
        error.mul_(grid.scale).sub_(x)
        found.append(torch.linalg.vector_norm(error, dtype=torch.float64).square())
    return found


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); infinite where nothing was changed."""
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def sqnr(x: Float[Tensor, "*b d"], bits: int, per: Per = "tensor", *, symmetric: bool = True) -> float:
    """Signal over quantisation noise in dB: 10 log10(sum x^2 / sum (x - Q(x))^2), rounding to nearest, min-max.

    Six decibels are about a bit. It is computed in float64.

    Args:
        x: numbers; the last dimension are channels, all others tokens.
        bits: 2 to 8.
        per: what has a scale of its own: the whole tensor, each channel or each token.
        symmetric: whether the grid is symmetric about 0.

    Returns:
        Decibels; infinite where rounding changes nothing.

    Raises:
        InputError: if there are no numbers, some are not finite, or `bits` or `per` is none of these.

    Example:
        >>> tokens = torch.randn(512, 768, generator=torch.Generator().manual_seed(0))
        >>> round(sqnr(tokens, 8, per="token")), round(sqnr(tokens, 8)), round(sqnr(tokens, 4, per="token"))
        (42, 40, 17)
    """
    check_bits("bits", bits)
    check_per(per)
    check_numbers(x)
    x = x.detach().double()
    (noise,) = rounding_noise(x, (bits,), per, symmetric=symmetric)
    return decibels(x.square().sum().item(), noise.item())


def check_bits(name: str, bits: int) -> None:
    """Refuse what is no number of bits that there is a grid for.

    Raises:
        InputError: if it is none.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not FEWEST <= bits <= MOST:
        raise InputError(f"{name}={bits!r}: give {FEWEST} to {MOST} bits")


def check_per(per: str) -> None:
    """Refuse what no scale can belong to.

    Raises:
        InputError: if it is none of the names.
    """
    if per not in get_args(Per):
        raise InputError(f"per={per!r}: give one of {', '.join(get_args(Per))}")


def check_numbers(x: Tensor) -> None:
    """Refuse what has no statistics.

    Raises:
        InputError: if it is empty, not of floating point, without dimensions, or not finite.
    """
    if not x.ndim or not x.numel() or not x.is_floating_point():
        raise InputError(f"x of shape {tuple(x.shape)}, {x.dtype}: give floating-point numbers, (..., channels)")
    if not x.isfinite().all():
        raise InputError("some numbers of x are not finite: look for NaN or infinity in the model's activations")
