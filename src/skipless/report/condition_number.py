"""Condition numbers as tables show them: never bare, and never more than is proved."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ConditionNumber:
    """A condition number as a table shows it.

    Attributes:
        value: the number, or the most that is proved.
        bound: whether it is only known to be at least that.
        rank, size: the numerical rank, if known, and what full rank would be.
    """

    value: float
    bound: bool
    rank: int | None = None
    size: int | None = None

    def __str__(self) -> str:
        text = f"{'≥ ' if self.bound else ''}{short(self.value)}"
        singular = self.bound and self.rank is not None and self.size is not None and self.rank < self.size
        return f"{text} (rank {self.rank} of {self.size})" if singular else text


def number(estimate: Mapping[str, Any], rank: int | None = None, size: int | None = None) -> ConditionNumber:
    """What a table shows of an estimate: its value where that is known to a tenth, else its lower bound.

    Example:
        >>> str(number({"value": 3e9, "lower": 3e9, "error": None}, rank=7, size=9))
        '≥ 3e9 (rank 7 of 9)'
    """
    known = estimate["error"] is not None and estimate["error"] <= 0.21  # of a square: twice the tenth of kappa itself
    return ConditionNumber(estimate["value"] if known else estimate["lower"], not known, rank, size)


def short(value: float) -> str:
    """Three digits, large numbers by their power of ten.

    Example:
        >>> short(1.0812), short(340.0), short(999.7), short(123456.0)
        ('1.08', '340', '1000', '1.2e5')
    """
    if not math.isfinite(value):
        return str(value)
    if value < 9999.5:
        return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
