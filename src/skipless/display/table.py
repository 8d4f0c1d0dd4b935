"""Table: one table of texts, shown as aligned columns, as Markdown, or as HTML for notebooks and pages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from skipless.errors import InputError

# A number as tables have it: perhaps a bound or a sign before it, a spread, a unit or a remark in brackets after it.
_NUMBER = re.compile(
    r"([<>=~≥≤±]+ ?)?[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?± ?[\d.]+)?"
    r"( ?(%|[kMGTPE]?i?B|GiB|[nµm]?s|min|h|GFLOP|EFLOP|points?))?( \(.*\))?"
)
_NOTHING = frozenset(("", "-", "–", "—", "none", "not run", "diverged", "nan", "inf"))
_RULER = {"l": ":--", "r": "--:"}
_NARROWEST = {"l": 1, "r": 2}  # so that a ruler has three characters


class Link(str):
    """The text of a table cell that is a link in HTML.

    Example:
        >>> Link("run 1", "run-1/page.html").href
        'run-1/page.html'
    """

    __slots__ = ("href",)
    href: str

    def __new__(cls, text: str, href: str) -> "Link":
        """Make the text, with its address."""
        link = super().__new__(cls, text)
        link.href = href
        return link

    def __reduce__(self) -> tuple[type["Link"], tuple[str, str]]:
        """What a copy is made of."""
        return Link, (str(self), self.href)


@dataclass(frozen=True, repr=False)
class Table:
    """A table whose cells are texts; `print` shows it as text, and a notebook as HTML.

    Attributes:
        head: titles of the columns.
        rows: the cells of each row, as many as there are titles.
        caption: what the numbers are: n, seed, unit, setting.
        notes: lines below it, such as what departs from what was expected; a departure starts with an exclamation mark.
        align: a letter for each column: `l` for texts at the left, `r` for numbers at the right. Without it, a column
            is one of numbers if all its cells are.

    Raises:
        InputError: if there is no column, or a row or `align` has another length than `head`.

    Example:
        >>> table = Table(("block", "kappa"), [("0", "1.5"), ("1", ">= 20")], "2 images, seed 0", ["! 1 is singular"])
        >>> print(table.text())
        block  kappa
        0      1.5
        1      >= 20
        2 images, seed 0
        ! 1 is singular
        >>> print(table.markdown())
        | block | kappa |
        | --: | --: |
        | 0 | 1.5 |
        | 1 | >= 20 |
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    notes: Sequence[str] = ()
    align: str = ""

    def __post_init__(self) -> None:
        count = len(self.head)
        if not count:
            raise InputError("a table has no columns: give at least one title in `head`")
        object.__setattr__(self, "head", tuple(self.head))
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))
        object.__setattr__(self, "notes", tuple(self.notes))
        if self.align and (len(self.align) != count or set(self.align) - {"l", "r"}):
            raise InputError(f"align={self.align!r}: give one letter, 'l' or 'r', for each of {count} columns")
        for row in self.rows:
            if len(row) != count:
                raise InputError(f"a row has {len(row)} cells, but there are {count} columns: {tuple(row)!r}")

    @property
    def alignment(self) -> str:
        """A letter for each column: `align`, or what the cells say."""
        if self.align:
            return self.align
        return "".join("r" if _are_numbers([row[i] for row in self.rows]) else "l" for i in range(len(self.head)))

    def text(self) -> str:
        """Aligned columns for a fixed-width font, then the caption, then the notes.

        All columns are aligned at the left: a reader of a terminal finds a column under its title.
        """
        return "\n".join([*self.lines(), *([self.caption] if self.caption else []), *self.notes])

    __str__ = text

    def __repr__(self) -> str:
        line = f"<Table: {len(self.rows)} rows of {', '.join(self.head)}>"
        return line if len(line) < 119 else f"{line[:116]}…>"

    def lines(self) -> list[str]:
        """The aligned columns alone: a line for the titles, and one for each row."""
        rows = (self.head, *self.rows)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def markdown(self, *, padded: bool = False) -> str:
        """The table in Markdown, without caption and notes; with `padded`, its columns are aligned as text, too."""
        letters, rows = self.alignment, [[_in_markdown(cell) for cell in row] for row in (self.head, *self.rows)]
        ruler = [_RULER[letter] for letter in letters]
        if padded:
            columns = zip(letters, zip(*rows, strict=True), strict=True)
            widths = [max(_NARROWEST[letter], *map(len, column)) for letter, column in columns]
            rows = [list(map(_padded, row, widths, letters)) for row in rows]
            ruler = [rule.replace("--", "-" * (width + 1)) for rule, width in zip(ruler, widths, strict=True)]
        head, *body = (f"| {' | '.join(row)} |" for row in rows)
        rule = f"|{'|'.join(ruler)}|" if padded else f"| {' | '.join(ruler)} |"
        return "\n".join([head, rule, *body])

    def html(self) -> str:
        """The table as a part of an HTML page, with its notes below it; it scrolls by itself if it is too wide.

        The classes are those of our pages. The inline style is for notebooks, which lack our style sheet. It sets no
        colours, so the table is readable in light and in dark themes.
        """
        letters = self.alignment
        titles = "".join(_cell(title, letter, "col") for title, letter in zip(self.head, letters, strict=True))
        caption = '<caption style="caption-side:bottom;text-align:left;white-space:normal">{}</caption>\n'
        notes = "\n".join(_note(note) for note in self.notes)
        return "\n".join([
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(self.caption or self.head[0])}"'
            ' style="overflow-x:auto;max-width:100%">',
            '<table class="runs" style="white-space:nowrap;font-variant-numeric:tabular-nums">',
            f"{caption.format(escape(self.caption)) if self.caption else ''}<thead><tr>{titles}</tr></thead>\n<tbody>",
            *(_row(row, letters) for row in self.rows),
            "</tbody></table>\n</div>" + (f'\n<ul class="notes">\n{notes}\n</ul>' if notes else ""),
        ])  # fmt: skip

    _repr_html_ = html


def _in_markdown(cell: str) -> str:
    """A cell whose bars and line breaks do not end it."""
    return cell.replace("|", "\\|").replace("\n", "<br>")


def _note(note: str) -> str:
    """A line below the table; one that tells of a departure stands out."""
    if note.startswith("! "):
        return f'<li class="flagged"><strong>!</strong> {escape(note.removeprefix("! "))}</li>'
    return f"<li>{escape(note)}</li>"


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether all cells are numbers, apart from those that say that there is none."""
    told = [cell for cell in cells if cell not in _NOTHING]
    return bool(told) and all(_NUMBER.fullmatch(cell) for cell in told)


def _padded(cell: str, width: int, letter: str) -> str:
    return cell.rjust(width) if letter == "r" else cell.ljust(width)


def _row(row: Sequence[str], letters: str) -> str:
    """A row, whose first cell is its title."""
    cells = zip(row, letters, strict=True)
    return f"<tr>{''.join(_cell(cell, letter, '' if i else 'row') for i, (cell, letter) in enumerate(cells))}</tr>"


def _cell(cell: str, letter: str, scope: str) -> str:
    """A cell; one with a scope is a title. Notebooks align all cells at the right, and texts belong at the left."""
    shown = f'<a href="{escape(cell.href)}">{escape(cell)}</a>' if isinstance(cell, Link) else escape(cell)
    style = ' class="number" style="text-align:right"' if letter == "r" else ' style="text-align:left"'
    return f'<th scope="{scope}"{style}>{shown}</th>' if scope else f"<td{style}>{shown}</td>"
