"""How studies name files, blocks and numbers."""

import re

from skipless.evaluators.features.extraction import Key


def file_name(text: str) -> str:
    """A text as part of a path.

    Example:
        >>> file_name("runs/s1: tokencut")
        'runs-s1-tokencut'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def feature_name(key: Key) -> str:
    """A block, counted from 0, and a kind of feature.

    Example:
        >>> feature_name((11, "k"))
        'block 11 k'
    """
    return f"block {key[0]} {key[1]}"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first column to the left and all others to the right."""
    ruler = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ruler, *rows))
