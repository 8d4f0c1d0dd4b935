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
