"""Labels of tables and figures."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from skipless.choices import OptimizerName, Row
from skipless.display.values import few_words

OptimizerLabel = Literal["AdamW", "SOAP", "Muon"]
OPTIMIZER_LABELS: tuple[OptimizerLabel, ...] = get_args(OptimizerLabel)
OPTIMIZER_LABEL: Mapping[OptimizerName, OptimizerLabel] = {"adamw": "AdamW", "soap": "SOAP", "muon": "Muon"}

ROW_CLASS: Mapping[Row, str] = {
    "skip": "skip",
    "skipless": "skipless",
    "skipless + init": "init",
    "skipless + ours": "own",
}
"""CSS class of a row, which is also the name of its colour."""

NOT_RUN = "not run"

FILE_KINDS: Mapping[str, str] = {
    ".md": "the table as Markdown",
    ".csv": "the numbers unrounded, for spreadsheets",
    ".json": "all that was measured, for programs",
    ".svg": "the picture, for print",
    ".png": "the picture",
}
"""What a report's file is, by its suffix."""


def rate(value: float) -> str:
    """A learning rate in short scientific notation.

    Example:
        >>> rate(0.003)
        '3e-3'
    """
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def printed_difference(one: float, other: float, digits: int = 1) -> str:
    """The difference of two numbers as a reader finds it who subtracts what is printed of them.

    Args:
        one, other: the numbers.
        digits: after the point, of the numbers and of the difference.

    Example:
        >>> printed_difference(89.25, 62.45), f"{89.25:.1f} - {62.45:.1f} is not {89.25 - 62.45:.1f}"
        ('+26.7', '89.2 - 62.5 is not 26.8')
    """
    return f"{float(f'{one:.{digits}f}') - float(f'{other:.{digits}f}'):+.{digits}f}"


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


def in_full(value: Any) -> str:
    """A setting in words, nothing of it left out, as whoever repeats a measurement needs it.

    Example:
        >>> in_full(None), in_full(True), in_full((4, 4, 8)), in_full({"k": [1, 5]})
        ('by default', 'yes', '4, 4, 8', 'k 1, 5')
    """
    if value is None:
        return "by default"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_full(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return few_words(value) if isinstance(value, bool) else str(value)
