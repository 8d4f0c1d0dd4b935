"""Labels of tables and figures."""

from collections.abc import Mapping
from typing import Literal, get_args

from skipless.choices import OptimizerName, Row

OptimizerLabel = Literal["AdamW", "SOAP"]
OPTIMIZER_LABELS: tuple[OptimizerLabel, ...] = get_args(OptimizerLabel)
OPTIMIZER_LABEL: Mapping[OptimizerName, OptimizerLabel] = {"adamw": "AdamW", "soap": "SOAP"}

ROW_CLASS: Mapping[Row, str] = {"skip": "skip", "skipless": "skipless", "skipless + init": "init"}
"""CSS class of a row, which is also the name of its colour."""

NOT_RUN = "not run"


def rate(value: float) -> str:
    """A learning rate in short scientific notation.

    Example:
        >>> rate(0.003)
        '3e-3'
    """
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration(seconds: float) -> str:
    """A duration in its two largest units.

    Example:
        >>> duration(12.34), duration(75), duration(7300)
        ('12.3 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
