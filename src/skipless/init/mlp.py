"""Scaled-corrected uniform orthogonal (SUO) initialisation of the MLP (Martens et al. 2021, cited in section 6.1)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.random_matrices import draw_haar


def scaled_uniform_orthogonal(
    fan_in: int,
    fan_out: int,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "i o"]:
    """W = max(sqrt(fan_out / fan_in), 1) x Haar-orthogonal, so that the mean square of `x @ W` is that of x.

    The gain depends on the orientation. Read as (out, in), the same formula gives 64 -> 256 a mean-square gain of 0.25
    and 256 -> 64 a gain of 4, instead of 1 and 1. This mistake raises no error, but `inspect_init` reports it.

    A gated MLP has two maps from d to hidden. Each is drawn on its own, even if a library stacks them in one weight.

    Args:
        fan_in: width of x.
        fan_out: width of `x @ W`.
        generator: source of randomness.
        dtype: dtype of the result; W is drawn in float64.

    Returns:
        W in the paper's orientation, `x @ W`.

    Raises:
        InputError: if a width is not positive.

    Example:
        >>> w = scaled_uniform_orthogonal(4, 16, dtype=torch.float64)
        >>> x = torch.ones(1, 4, dtype=torch.float64)
        >>> round(((x @ w).square().mean() / x.square().mean()).item(), 6)
        1.0
    """
    return draw_scaled_uniform_orthogonal(fan_in, fan_out, generator=generator)().to(dtype)


def draw_scaled_uniform_orthogonal(
    fan_in: int, fan_out: int, *, generator: Generator | None = None, device: torch.device | None = None
) -> Callable[[], Float64[Tensor, "i o"]]:
    """Draw W now, to be orthonormalised later, on a device if one is given; see `random_matrices`."""
    if fan_in < 1 or fan_out < 1:
        raise InputError(f"an orthogonal matrix needs widths >= 1, got fan_in={fan_in}, fan_out={fan_out}")
    gain = max(math.sqrt(fan_out / fan_in), 1.0)
    orthogonal = draw_haar(fan_in, fan_out, generator=generator, device=device)
    return lambda: gain * orthogonal()
