"""Value and output weights with W_V W_O = c^2 U V^T, an orthogonal matrix times c^2 (section 5.1)."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.random_matrices import LARGE, draw_haar, normal
from skipless.init.truncated_svd import signs


def value_output(
    dim: int,
    c: float,
    *,
    inner: int | None = None,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "d k"], Float[Tensor, "k d"]]:
    """W_V = c U and W_O = c V^T, from the SVD of one d x d Gaussian over the full width, not per head (section 5.1).

    Both factors carry `c`, so every singular value of W_V W_O is c^2 and kappa(W_V W_O) = 1.

    Args:
        dim: token width d.
        c: scale of each factor.
        inner: heads x head_dim, d by default. If it is larger than d, the product is still c^2 times an orthogonal
            matrix. If it is smaller, `inner` singular values are c^2 and the rest 0.
        generator: source of randomness.
        dtype: dtype of the result; the factorisation is done in float64.

    Returns:
        `(w_v, w_o)` in the paper's orientation: `x @ w_v @ w_o`.

    Raises:
        InputError: if `dim`, `inner` or `c` is not positive.

    Example:
        >>> w_v, w_o = value_output(6, 3.0, dtype=torch.float64)
        >>> torch.linalg.svdvals(w_v @ w_o)
        tensor([9.0000, 9.0000, 9.0000, 9.0000, 9.0000, 9.0000], dtype=torch.float64)
    """
    w_v, w_o = draw_value_output(dim, c, inner=inner, generator=generator)()
    return w_v.to(dtype), w_o.to(dtype)


def draw_value_output(
    dim: int,
    c: float,
    *,
    inner: int | None = None,
    generator: Generator | None = None,
    device: torch.device | None = None,
) -> Callable[[], tuple[Float64[Tensor, "d k"], Float64[Tensor, "k d"]]]:
    """Draw what `value_output` draws now, to be factorised later, on a device if one is given; see `random_matrices`.

    From a width of `random_matrices.LARGE` on, each column of U has a positive entry of largest size, so that other
    processors and devices give the same factors.
    """
    inner = dim if inner is None else inner
    if dim < 1 or inner < 1:
        raise InputError(f"value_output needs dim >= 1 and inner >= 1, got dim={dim}, inner={inner}")
    if not (math.isfinite(c) and c > 0):
        raise InputError(f"c must be a positive number, got c={c}: W_V W_O has singular values c^2")
    gaussian = normal(dim, dim, generator=generator)
    spread = draw_haar(dim, inner, generator=generator, device=device) if inner > dim else None

    def factorise() -> tuple[Float64[Tensor, "d k"], Float64[Tensor, "k d"]]:
        u, _, vh = torch.linalg.svd(gaussian.to(device))
        if dim >= LARGE:
            sign = signs(u)
            u, vh = u * sign, vh * sign[:, None]
        if spread is None:
            return c * u[:, :inner], c * vh[:inner]
        over = spread()
        return c * u @ over, c * over.mT @ vh

    return factorise
