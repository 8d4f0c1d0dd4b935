"""Checks of the scheme's values, without torch."""

import math
from typing import get_args

from skipless.choices import Factors, Noise
from skipless.errors import InputError


def check_target(alpha: float, beta: float, factors: Factors, noise: Noise) -> None:
    """Refuse a target alpha Z + beta I, or a way to split it into heads, that has no meaning.

    Raises:
        InputError: for alpha = beta = 0, numbers that are not finite, unknown names, or `"partition"` with alpha != 0.
    """
    check_choice("factors", factors, get_args(Factors))
    check_choice("noise", noise, get_args(Noise))
    if not (math.isfinite(alpha) and math.isfinite(beta)) or alpha == beta == 0:
        raise InputError(f"alpha={alpha}, beta={beta}: both must be finite, and not both 0 (Eq. 11)")
    if factors == "partition" and alpha != 0:
        raise InputError(f"factors='partition' splits beta I and needs alpha=0, got alpha={alpha}; use 'per_head'")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a name that is none of the choices.

    Raises:
        InputError: if it is none of them; the message lists them.
    """
    if value not in choices:
        raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_start(mlp: str, mlp_linearity: float | None, positions: str, position_scale: float) -> None:
    """Refuse values of what goes beyond the paper that have no meaning, or no effect.

    Raises:
        InputError: for shares outside their range, and for settings of what is not chosen.
    """
    if mlp_linearity is not None and mlp != "mirrored":
        raise InputError(f"mlp_linearity={mlp_linearity} is of mlp='mirrored', not of mlp={mlp!r}")
    if mlp_linearity is not None and not 0 <= mlp_linearity <= 1:
        raise InputError(f"mlp_linearity={mlp_linearity} is a share: give a number from 0 to 1 (1: a rotation)")
    if not (math.isfinite(position_scale) and position_scale > 0):
        raise InputError(f"position_scale={position_scale} must be a positive number")
    if position_scale != 1 and positions == "kept":
        raise InputError(f"position_scale={position_scale} is of positions='orthogonal' or 'smooth', not of 'kept'")


def check_context_heads(share: float, mlp: str, first: float | None, last: float | None) -> None:
    """Refuse two kinds of heads where nothing tells them apart, or the MLP would mix what they keep apart.

    Raises:
        InputError: if so, or for a share out of range.
    """
    if not 0 <= share < 1:
        raise InputError(f"context_heads={share} is a share of the heads: give a number from 0 to below 1")
    if share and mlp != "mirrored":
        raise InputError(f"context_heads={share} needs mlp='mirrored': mlp={mlp!r} would mix what heads keep apart")
    if share and (first is None or last is None):
        raise InputError(
            f"context_heads={share} needs attention_diagonal, that of the heads that keep the token, and "
            "last_diagonal, that of those that look around"
        )


def check_diagonals(first: float | None, last: float | None) -> None:
    """Refuse mean attention diagonals that are no weights, and a last one without a first.

    Raises:
        InputError: if one is.
    """
    for name, value in (("attention_diagonal", first), ("last_diagonal", last)):
        if value is not None and not 0 < value < 1:
            raise InputError(f"{name}={value} is a mean weight: give a number between 0 and 1")
    if last is not None and first is None:
        raise InputError(f"last_diagonal={last} needs attention_diagonal, that of the first block")
