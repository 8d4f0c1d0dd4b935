"""Value and output weights with W_V W_O = c^2 U V^T, an orthogonal matrix times c^2 (section 5.1)."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.random_matrices import haar, normal


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
    inner = dim if inner is None else inner
    if dim < 1 or inner < 1:
        raise InputError(f"value_output needs dim >= 1 and inner >= 1, got dim={dim}, inner={inner}")
    if not (math.isfinite(c) and c > 0):
        raise InputError(f"c must be a positive number, got c={c}: W_V W_O has singular values c^2")
    u, _, vh = torch.linalg.svd(normal(dim, dim, generator=generator))
    if inner > dim:
        spread = haar(dim, inner, generator=generator)
        w_v, w_o = c * u @ spread, c * spread.mT @ vh
    else:
        w_v, w_o = c * u[:, :inner], c * vh[:inner]
    return w_v.to(dtype), w_o.to(dtype)
