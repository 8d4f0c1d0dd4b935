"""Two kinds of heads: those that keep the token, and those that look around, in a subspace of their own.

Without a skip, attention has two tasks that exclude each other: to pass a token on, and to fetch what others hold.
Heads that start at the identity do the first so well that gradients hardly move them: their softmax is saturated.
Diffuse heads mix all tokens. So some heads start at the identity, the others diffuse, and W_V W_O maps the directions
that each kind reads onto themselves. The MLP's rotation turns the two subspaces into each other by a small angle, which
brings something new to where it is mixed, and what was found to where it is kept.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.random_matrices import draw_haar

KEPT = 0.3
"""Share of a token's mean square that no head that looks around has read, after all blocks; see `solve_turn`."""

Rotation = Callable[[], Float64[Tensor, "d d"]]


def context_count(heads: int, share: float) -> int:
    """How many of a block's heads look around: the last ones.

    Raises:
        InputError: if that leaves none of one kind.

    Example:
        >>> context_count(6, 0.5), context_count(12, 0.25)
        (3, 3)
    """
    count = round(heads * share)
    if not 0 < count < heads:
        raise InputError(
            f"context_heads={share} of {heads} heads is {count}: there must be heads of both kinds; give another "
            "share, or 0 for one kind"
        )
    return count


def solve_turn(depth: int) -> float:
    """The angle in radians by which each MLP turns the two subspaces into each other: cos(angle)^(2 depth) = KEPT.

    Example:
        >>> [round(solve_turn(depth), 2) for depth in (12, 36, 144)]
        [0.31, 0.18, 0.09]
    """
    return math.acos(KEPT ** (1 / (2 * depth)))


def draw_parted_value_output(
    dim: int,
    c: float,
    kept: int,
    *,
    generator: Generator | None = None,
    device: torch.device | None = None,
) -> Callable[[], tuple[Float64[Tensor, "d d"], Float64[Tensor, "d d"]]]:
    """W_V and W_O of heads of two kinds, drawn now, to be orthonormalised later.

    Both are c times an orthogonal matrix of two diagonal parts: the first heads read and write the first `kept`
    directions, the last heads the others. So every singular value of W_V W_O is c^2, as in section 5.1.
    """
    value, output = (_draw_parted(dim, kept, generator, device) for _ in range(2))
    return lambda: (c * value(), c * output())


def draw_turned_rotation(
    dim: int,
    kept: int,
    angle: float,
    *,
    generator: Generator | None = None,
    device: torch.device | None = None,
) -> Rotation:
    """A random rotation of each subspace, and then one of both into each other, drawn now."""
    parted = _draw_parted(dim, kept, generator, device)
    pairs = min(kept, dim - kept)

    def rotation() -> Float64[Tensor, "d d"]:
        apart = parted()
        turn = torch.eye(dim, dtype=torch.float64, device=apart.device)
        one = torch.arange(pairs, device=apart.device)
        turn[one, one] = turn[kept + one, kept + one] = math.cos(angle)
        turn[one, kept + one], turn[kept + one, one] = math.sin(angle), -math.sin(angle)
        return apart @ turn

    return rotation


def _draw_parted(dim: int, kept: int, generator: Generator | None, device: torch.device | None) -> Rotation:
    parts = [draw_haar(size, size, generator=generator, device=device) for size in (kept, dim - kept)]
    return lambda: torch.block_diag(*(part() for part in parts))
