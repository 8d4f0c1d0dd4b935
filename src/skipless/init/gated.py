"""Nearly linear initialisation of a gated MLP, whose gates start nearly constant.

With silu(g) u - silu(-g) u = g u a gated MLP has no linear part that mirrored units could show. A bias of the gate has:
where its weights are 0, silu(b) u is linear.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.context_heads import Rotation
from skipless.init.correlation_map import Activation, check_linearity, gaussian_mean
from skipless.init.random_matrices import draw_haar

GATE_BIAS = 1.5
"""Where gates start: SiLU and GELU are nearly straight there, and far from closed."""


def draw_gated_mlp(
    dim: int,
    hidden: int,
    activation: Activation,
    linearity: float,
    *,
    generator: Generator | None = None,
    device: torch.device | None = None,
    rotation: Rotation | None = None,
) -> Callable[[], tuple[Float64[Tensor, "d h"], Float64[Tensor, "d h"], Float64[Tensor, "h d"]]]:
    """Draw the gate's map, the other input map and the output map now, to be orthonormalised later.

    For normal tokens x of mean square 1 and gates with the bias `GATE_BIAS`,

        MLP(x) = (f(b + x G) * x A) A^T R / s,    G = e G_0,

    of which x R is the linear part. With the gates' mean m and variance v it has the share m^2 / (m^2 + v d / h) of the
    mean square: A^T passes on d of the h directions in which gates vary. e is solved from the share. The rest has no
    part that all tokens share, so orthogonal tokens stay orthogonal whatever the share is. `rotation` takes the place
    of R.

    Raises:
        InputError: if there are fewer hidden units than d, or for a share out of range.
    """
    check_linearity(linearity)
    check_gated(dim, hidden)
    spread = solve_gate_spread(activation, linearity, dim / hidden)
    rms = math.sqrt(sum(_linear_and_rest(activation, spread, dim / hidden)))
    gain = math.sqrt(hidden / dim)
    gate, into = (draw_haar(dim, hidden, generator=generator, device=device) for _ in range(2))
    turn = rotation or draw_haar(dim, dim, generator=generator, device=device)

    def orthonormalise() -> tuple[Tensor, Tensor, Tensor]:
        a = gain * into()
        return spread * gain * gate(), a, a.mT @ turn() / (gain**2 * rms)

    return orthonormalise


def solve_gate_spread(activation: Activation, linearity: float, passed: float) -> float:
    """e, the size of the gates' variation around their bias, for which the linear share is as given; at most 1.

    Args:
        activation: of the gates.
        linearity: the linear share.
        passed: d / h, how much the output map passes on of what varies from gate to gate.

    Raises:
        InputError: if the activation is 0 at the bias.
    """

    def share(spread: float) -> float:
        linear, rest = _linear_and_rest(activation, spread, passed)
        return linear / (linear + rest) if linear + rest else math.nan

    if math.isnan(share(0.0)):
        raise InputError(f"{activation} is 0 at {GATE_BIAS}, where the gates would start: use mlp='orthogonal'")
    if share(1.0) >= linearity:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > linearity else (low, middle)
    return low


def _linear_and_rest(activation: Activation, spread: float, passed: float) -> tuple[float, float]:
    """m^2 and v d / h: mean squares of the linear part and of the rest, before they are divided by their sum."""

    def gates(z: Tensor) -> Tensor:
        return activation(GATE_BIAS + spread * z)

    linear = gaussian_mean(gates) ** 2
    return linear, passed * max(gaussian_mean(gates, power=2) - linear, 0.0)


def check_gated(dim: int, hidden: int) -> None:
    """Refuse sizes that leave no room for a rotation.

    Raises:
        InputError: if there are fewer hidden units than d.
    """
    if dim < 1 or hidden < dim:
        raise InputError(f"a gated MLP that starts near a rotation needs at least d = {dim} hidden units, not {hidden}")
