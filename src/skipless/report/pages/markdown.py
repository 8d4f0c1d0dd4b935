"""The Markdown that our reports write, as HTML: what a page shows is thus what the file beside it holds."""

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, pairwise

from skipless.display import Table

_RULER = re.compile(r"\|(?: ?:?-+:? ?\|)+")
_BAR = re.compile(r"(?<!\\)\|")  # between cells; one within a cell is escaped
_END = re.compile(r"(?<!\\)\|$")
_LEFT_OUT = ("# ", "![", "Made by `")  # a page has its own title, pictures and command


def markdown_html(text: str) -> str:
    """Tables, paragraphs and lists as HTML; each table scrolls by itself if it is too wide.

    One line after a table is its caption, several are notes below it. Titles, pictures and the line that names the
    command are left out.

    Raises:
        InputError: if a row of a table has more or fewer cells than its head.

    Example:
        >>> print(markdown_html("a < b"))
        <p>a &lt; b</p>
    """
    return "\n".join(_parts(text))


def tables_of(text: str) -> list[Table]:
    """The tables in a text, each with the lines that follow it.

    Example:
        >>> (table,) = tables_of("| block | kappa |\\n|:--|--:|\\n| 0 | 1.5 |\\n\\n1 image")
        >>> table.head, table.rows, table.caption, table.align
        (('block', 'kappa'), (('0', '1.5'),), '1 image', 'lr')
    """
    return [table for table, _ in _pieces(text) if table is not None]


def _parts(text: str) -> Iterator[str]:
    for table, lines in _pieces(text):
        if table is not None:
            yield table.html()
            continue
        for are_items, group in groupby(lines, lambda line: line.startswith("- ")):
            if are_items:
                items = "\n".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in group)
                yield f"<ul>\n{items}\n</ul>"
            else:
                yield from (f"<p>{escape(line)}</p>" for line in group)


def _pieces(text: str) -> Iterator[tuple[Table | None, Sequence[str]]]:
    """Tables with the lines that follow them, and lines that follow none."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_LEFT_OUT)]
    starts = [i for i in range(len(lines) - 1) if lines[i].startswith("|") and _RULER.fullmatch(lines[i + 1])]
    before = lines[: starts[0]] if starts else lines
    if before:
        yield None, before
    for start, end in pairwise([*starts, len(lines)]):
        rows = [line for line in lines[start:end] if line.startswith("|")]
        notes = [line for line in lines[start:end] if not line.startswith("|")]
        head, ruler, *body = map(_cells, rows)
        align = "".join("r" if cell.endswith(":") else "l" for cell in ruler)
        caption, notes = (notes[0], []) if len(notes) == 1 else ("", notes)
        yield Table(head, body, caption, notes, align), ()


def _cells(line: str) -> list[str]:
    """The texts of a row's cells, as they were before `Table.markdown` escaped bars and line breaks."""
    inner = _END.sub("", line.strip().removeprefix("|"))
    cells = (cell.strip().replace("<br>", "\n") for cell in _BAR.split(inner))
    return [cell.replace("\\|", "|") for cell in cells]
