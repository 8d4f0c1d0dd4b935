"""Values of any kind as a few words, for lines and cells of tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FEW = 6  # values that are listed; more are counted


def few_words(value: Any) -> str:
    """A value as a few words: numbers with four digits, long sequences by their length, tensors by their shape.

    Example:
        >>> few_words(0.123456), few_words(86_000_000), few_words((1, 2.5)), few_words(range(100)), few_words(None)
        ('0.1235', '86,000,000', '1 2.5', '100 values', 'none')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        size = " x ".join(map(str, value.shape))
        return f"{size} {str(value.dtype).removeprefix('torch.')}" if size else few_words(value.item())
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if isinstance(value, str | Path) else _many(value)


def _many(value: Any) -> str:
    if isinstance(value, Mapping):
        if len(value) > _FEW or not all(isinstance(v, int | float | str) for v in value.values()):
            return counted(len(value), "entry", "entries")
        return ", ".join(f"{few_words(key)} {few_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence):
        if len(value) > _FEW or not all(isinstance(v, int | float | str) for v in value):
            return counted(len(value), "value")
        return " ".join(map(few_words, value)) or "none"
    summary = getattr(value, "_summary", None)  # a record within a record
    return str(summary()) if callable(summary) else getattr(value, "__name__", type(value).__name__)


def counted(count: float, noun: str, several: str = "") -> str:
    """A count with its noun; of a part of one, four digits.

    Example:
        >>> counted(1, "block"), counted(12, "block"), counted(2, "entry", "entries"), counted(0.5, "epoch")
        ('1 block', '12 blocks', '2 entries', '0.5 epochs')
    """
    number = f"{count:,}" if isinstance(count, int) else f"{count:.4g}"
    return f"{number} {noun if count == 1 else several or noun + 's'}"


def in_a_row(names: Sequence[str]) -> str:
    """Words one after the other, as a sentence lists them.

    Example:
        >>> in_a_row(["AdamW"]), in_a_row(["AdamW", "SOAP"]), in_a_row(["AdamW", "SOAP", "Muon"])
        ('AdamW', 'AdamW and SOAP', 'AdamW, SOAP and Muon')
    """
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def place_name(place: str | Path) -> str:
    """The name of a data set, a run or a folder, wherever its path starts from.

    Example:
        >>> place_name("digits"), place_name("photos/birds/"), place_name("photos/birds/..")
        ('digits', 'birds', 'photos')
    """
    path = Path(place).expanduser()
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return name or "root"
