"""Mirrored initialisation of the MLP: a rotation, and as much of the activation's even part as wanted.

For GELU, SiLU and ReLU f(x) - f(-x) = x. So with hidden units in pairs of opposite sign the MLP can be a linear map,
however large its input is. Convolutional networks have had this as "looks linear" (Balduzzi et al. 2017).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.context_heads import Rotation
from skipless.init.correlation_map import Activation, check_linearity, even_part, gaussian_mean, odd_slope
from skipless.init.random_matrices import draw_haar

_NOTHING = 1e-9  # an even part that is rounding

Maps = tuple[Float64[Tensor, "d h"], Float64[Tensor, "h d"]]


def mirrored_mlp(
    dim: int,
    hidden: int,
    activation: Activation,
    linearity: float = 1.0,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "d h"], Float[Tensor, "h d"]]:
    """Maps of an MLP that is a random rotation, up to a share of its activation's even part.

    W_1 = [A, -A], so that with u = x A the hidden units are f(u) and f(-u). Their difference is k u, and half their sum
    is the even part e(u) = (f(u) + f(-u)) / 2. W_2 reads the two apart:

        MLP(x) = sqrt(linearity) x R + sqrt(1 - linearity) e(u) S / rms(e).

    R is a random rotation and S has random orthonormal columns. Both terms have the mean square of x for normal
    tokens of mean square 1. `linearity = 1` is the rotation x R for every x: its condition number is 1, and all cosines
    stay. Scaled orthogonal maps have the share of `CorrelationMap.of(activation).linearity`, 0.59 for GELU.

    Args:
        dim: d.
        hidden: number of hidden units; even, and at least 2 d.
        activation: f, elementwise, with f(x) - f(-x) = k x.
        linearity: the linear share of the output's mean square, from 0 to 1.
        generator: source of randomness.
        dtype: dtype of the result; the maps are drawn in float64.

    Returns:
        `(w_1, w_2)` of shapes (d, h) and (h, d), used as `f(x @ w_1) @ w_2`, for biases of 0.

    Raises:
        InputError: for sizes that leave no room for a pair a direction, a share out of range, or another activation.

    Example:
        >>> w_1, w_2 = mirrored_mlp(8, 32, torch.nn.functional.gelu, dtype=torch.float64)
        >>> x = torch.randn(5, 8, dtype=torch.float64)
        >>> y = torch.nn.functional.gelu(x @ w_1) @ w_2
        >>> torch.allclose(y @ y.T, x @ x.T)
        True
    """
    w_1, w_2 = draw_mirrored_mlp(dim, hidden, activation, linearity, generator=generator)()
    return w_1.to(dtype), w_2.to(dtype)


def draw_mirrored_mlp(
    dim: int,
    hidden: int,
    activation: Activation,
    linearity: float = 1.0,
    *,
    generator: Generator | None = None,
    device: torch.device | None = None,
    rotation: Rotation | None = None,
) -> Callable[[], Maps]:
    """Draw A, R and S now, to be orthonormalised later, on a device if one is given; see `random_matrices`.

    `rotation` takes the place of R.
    """
    check_linearity(linearity)
    check_mirrored(dim, hidden)
    slope, rms = odd_slope(activation), even_rms(activation, linearity)
    pairs = hidden // 2
    gain = math.sqrt(pairs / dim)  # so that u has the mean square of x
    into = draw_haar(dim, pairs, generator=generator, device=device)
    turn = rotation or draw_haar(dim, dim, generator=generator, device=device)
    out_of = draw_haar(pairs, dim, generator=generator, device=device)

    def orthonormalise() -> Maps:
        a = gain * into()
        odd = math.sqrt(linearity) / (slope * gain**2) * (a.mT @ turn())
        even = (math.sqrt(1 - linearity) / (2 * rms) if linearity < 1 else 0.0) * out_of()
        return torch.cat((a, -a), dim=1), torch.cat((even + odd, even - odd))

    return orthonormalise


def even_rms(activation: Activation, linearity: float) -> float:
    """Root mean square of the even part.

    Raises:
        InputError: if it is 0 where a share is wanted of it.
    """
    rms = math.sqrt(gaussian_mean(even_part(activation), power=2))
    if rms < _NOTHING and linearity < 1:
        raise InputError(f"{activation} has no even part: mlp_linearity={linearity} must be 1, its only share")
    return rms


def check_mirrored(dim: int, hidden: int) -> None:
    """Refuse sizes that leave no room for a pair of hidden units a direction.

    Raises:
        InputError: if they do not.
    """
    if dim < 1 or hidden % 2 or hidden < 2 * dim:
        raise InputError(
            f"a mirrored MLP needs a pair of hidden units for each of its d = {dim} directions, an even number of at "
            f"least {2 * max(dim, 1)}; this one has {hidden}: use mlp='orthogonal'"
        )
