"""Condition numbers as text: a value where it is known, otherwise a lower bound."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skipless.display import Record


@dataclass(frozen=True)
class ConditionNumber(Record):
    """A condition number as shown in tables.

    Attributes:
        value: the number, or the best lower bound.
        bound: whether `value` is only a lower bound.
        rank, size: the numerical rank, if known, and the full rank.
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
    """The number to show for an estimate: its value if that is known to a tenth, otherwise its lower bound.

    Example:
        >>> str(number({"value": 3e9, "lower": 3e9, "error": None}, rank=7, size=9))
        '≥ 3e9 (rank 7 of 9)'
    """
    known = estimate["error"] is not None and estimate["error"] <= 0.21  # a tenth of kappa is about 0.21 of its square
    return ConditionNumber(estimate["value"] if known else estimate["lower"], not known, rank, size)


def short(value: float) -> str:
    """A number with three digits; large ones in scientific notation.

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
