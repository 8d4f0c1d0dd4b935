"""Names with a line on each, as a help text lists them."""

import shutil
import textwrap
from collections.abc import Mapping


def listed(lines: Mapping[str, str]) -> str:
    """Names in a column, and beside them what they are.

    Example:
        >>> print(listed({"knn": "by neighbours", "tokencut": "by cutting a graph"}))
          knn       by neighbours
          tokencut  by cutting a graph
    """
    width = max(map(len, lines)) + 4
    columns = min(shutil.get_terminal_size().columns, 110)
    return "\n".join(
        textwrap.fill(
            text,
            columns,
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for name, text in lines.items()
    )


def examples(lines: tuple[str, ...]) -> str:
    """Command lines that work as they stand, for the end of a description."""
    return "\n".join(["examples:", *(f"  {line}" for line in lines)]) if lines else ""
