"""Mirrored initialisation of a gated MLP without biases: one input map for gates and values, in pairs of opposite sign.

Where gates and values are drawn apart, f(g) u is bilinear in two independent images of a token, and no pairing makes it
linear. Where they are one map, the difference of a pair is an odd, increasing function of one number, nearly u |u|.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.context_heads import Rotation
from skipless.init.correlation_map import Activation, check_linearity, even_part, gaussian_mean
from skipless.init.random_matrices import draw_haar

GATE_SCALE = 4.0
"""Size of the gates' map beside that of the values', where no linear share is asked for: 0.84 with SiLU. Chosen by
training a language model (LOG.md, 2026-11-29)."""

_LARGEST = 2.0**10  # a scale at which SiLU and GELU are ReLU, whose share is 8 / (3 pi) = 0.849
_NOTHING = 1e-9  # an even part that is rounding


def draw_mirrored_gated_mlp(
    dim: int,
    hidden: int,
    activation: Activation,
    linearity: float | None = None,
    *,
    generator: Generator | None = None,
    device: torch.device | None = None,
    rotation: Rotation | None = None,
) -> Callable[[], tuple[Float64[Tensor, "d h"], Float64[Tensor, "d h"], Float64[Tensor, "h d"]]]:
    """Draw the gates' map, the other input map and the output map now, to be orthonormalised later.

    With W_up = [A, -A], W_gate = s W_up and W_down = [A^+ R; -A^+ R], where A A^+ = I and R is a random rotation,

        MLP(x) = g(x A) A^+ R,    g(u) = f(s u) u - f(-s u) (-u) = u (f(s u) + f(-s u)).

    g is odd: orthogonal tokens stay orthogonal. Its linear share grows with s. Two independent maps leave no linear
    part at all, and one map that is not mirrored has a part that all tokens share. The mean square grows with s, too,
    and the next norm takes it away: dividing W_down by it would make this map learn faster than the others, which
    trains worse (LOG.md, 2026-11-29).

    Args:
        dim: d.
        hidden: number of hidden units, at least 2 d; of an odd number the last starts at 0.
        activation: f of the gates, elementwise, not odd.
        linearity: the linear share of the output's mean square; None takes that of `GATE_SCALE`.
        generator: source of randomness.
        device: where the matrices are orthonormalised.
        rotation: takes the place of R.

    Raises:
        InputError: for sizes that leave no room for a pair a direction, an odd activation, or a share out of reach.
    """
    check_mirrored_gated(dim, hidden, activation)
    scale = GATE_SCALE if linearity is None else solve_gate_scale(activation, linearity)
    pairs = hidden // 2
    gain = math.sqrt(pairs / dim)  # so that u has the mean square of x
    into = draw_haar(dim, pairs, generator=generator, device=device)
    turn = rotation or draw_haar(dim, dim, generator=generator, device=device)

    def orthonormalise() -> tuple[Tensor, Tensor, Tensor]:
        a = gain * into()
        out = a.mT @ turn() / gain**2
        up, down = torch.cat((a, -a), dim=1), torch.cat((out, -out))
        if hidden % 2:
            up, down = torch.cat((up, up.new_zeros(dim, 1)), dim=1), torch.cat((down, down.new_zeros(1, dim)))
        return scale * up, up, down

    return orthonormalise


def odd_product(activation: Activation, scale: float) -> Activation:
    """What a pair of hidden units gives: g(u) = u (f(s u) + f(-s u))."""
    even = even_part(activation)
    return lambda u: 2 * u * even(scale * u)


def gated_linearity(activation: Activation, scale: float) -> float:
    """The linear share of a mirrored gated MLP, for normal tokens.

    Example:
        >>> [round(gated_linearity(torch.nn.functional.silu, scale), 2) for scale in (0.5, 2.0, 100.0)]
        [0.64, 0.79, 0.85]
    """
    product = odd_product(activation, scale)
    return gaussian_mean(lambda u: u * product(u)) ** 2 / gaussian_mean(product, power=2)


def solve_gate_scale(activation: Activation, linearity: float) -> float:
    """s, the size of the gates' map, with which the linear share is as given.

    Raises:
        InputError: if no size has this share.
    """
    check_linearity(linearity)
    low, high = 1 / _LARGEST, _LARGEST
    least, most = gated_linearity(activation, low), gated_linearity(activation, high)
    if not least <= linearity <= most:
        raise InputError(
            f"mlp_linearity={linearity}: a gated MLP without biases has a linear share of {least:.2f} to {most:.2f} "
            "with this activation; leave it out, or build the MLP with biases, whose gates can start open"
        )
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gated_linearity(activation, middle) < linearity else (low, middle)
    return high


def check_mirrored_gated(dim: int, hidden: int, activation: Activation) -> None:
    """Refuse sizes that leave no room for a pair of hidden units a direction, and gates without an even part.

    Raises:
        InputError: if they do not, or it has none.
    """
    if dim < 1 or hidden < 2 * dim:
        raise InputError(
            f"a mirrored MLP needs a pair of hidden units for each of its d = {dim} directions, at least "
            f"{2 * max(dim, 1)}; this one has {hidden}: use mlp='orthogonal'"
        )
    if gaussian_mean(even_part(activation), power=2) < _NOTHING**2:
        raise InputError(f"{activation} is odd, and pairs of opposite sign would cancel: use mlp='orthogonal'")
