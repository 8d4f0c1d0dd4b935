"""Names and tables of studies as text."""

import re

from skipless.display import Table
from skipless.evaluators.features.extraction import Key

MAX_NAME = 255  # bytes of a name in a file system
LONGEST = MAX_NAME - len("-untrained") - 1 - 64  # room for whose weights they are and for a whole hash


def file_name(text: str, longest: int = LONGEST) -> str:
    """A text made safe as part of a path.

    Args:
        text: any.
        longest: how many bytes of it are kept as UTF-8, in whole letters.

    Example:
        >>> file_name("runs/s1: tokencut")
        'runs-s1-tokencut'
    """
    safe = re.sub(r"[^\w.]+", "-", text).strip("-")
    return safe.encode()[:longest].decode(errors="ignore").rstrip("-")


def feature_name(key: Key) -> str:
    """The name of a feature: its block, counted from 0, and its kind.

    Example:
        >>> feature_name((11, "k"))
        'block 11 k'
    """
    return f"block {key[0]} {key[1]}"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with the first column left-aligned and all others right-aligned."""
    return Table(head, rows, align=f"l{'r' * (len(head) - 1)}").markdown()
