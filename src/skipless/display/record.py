"""Record: what all results have in common, so that a terminal, a notebook and a page show them alike."""

from collections.abc import Sequence
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, ClassVar

from skipless.display.drawing import inline_svg, new_axes
from skipless.display.table import Table
from skipless.display.values import few_words
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 118  # characters of a repr
_OPEN = '<div class="record" style="display:grid;grid-template-columns:minmax(0,1fr);gap:0.8em">'


class Record:
    """A result that shows itself: `repr` is one line, `str` is all of it, a notebook shows its tables and picture.

    A record is a dataclass with `repr=False` that extends this class and defines `_summary` and `tables`; without them
    its fields are shown. One that has a picture defines `_draw` besides. A dataclass of a few numbers keeps its own
    `repr`, which is one line anyway.
    """

    _size: ClassVar[tuple[float, float]] = (6.4, 3.4)  # of the picture, in inches

    def _summary(self) -> str:
        """What was found, in a few words: the key numbers, and how many there are of what."""
        return ", ".join(f"{name} {value}" for name, value in self._values())

    def tables(self) -> Sequence[Table]:
        """The result as tables of texts, each with a caption that says what its numbers are."""
        return (Table((type(self).__name__, "value"), self._values(), align="lr"),)

    def _values(self) -> list[tuple[str, str]]:
        """Names and values of the fields, in a few words each."""
        shown = [part.name for part in fields(self) if part.repr]  # pyright: ignore[reportArgumentType]
        return [(name.replace("_", " "), few_words(getattr(self, name))) for name in shown]

    def _draw(self, axes: "Axes") -> None:
        """Draw the result."""
        raise InputError(f"{type(self).__name__} has no picture; print it, or take its tables()")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the result, and return the axes, as pandas does.

        Args:
            ax: axes to draw into. Without them a new figure of pyplot's is made, which notebooks show.

        Raises:
            InputError: if matplotlib is missing, or the result has no picture.
        """
        if not self._has_picture():
            self._draw(ax)  # pyright: ignore[reportArgumentType]  # it says that there is none
        axes = new_axes(self._size) if ax is None else ax
        self._draw(axes)
        return axes

    def _has_picture(self) -> bool:
        """Whether there is something to draw."""
        return type(self)._draw is not Record._draw

    def __repr__(self) -> str:
        line = " ".join(f"<{type(self).__name__}: {self._summary()}>".split())
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 2]}…>"

    def __str__(self) -> str:
        return "\n\n".join(table.text() for table in self.tables())

    def _repr_html_(self) -> str:
        """The tables and the picture as a part of an HTML page: for notebooks, and for our pages."""
        name = f'<p style="margin:0"><strong>{escape(type(self).__name__)}</strong> {escape(self._summary())}</p>'
        picture = inline_svg(self._draw, self._size, repr(self)) if self._has_picture() else ""
        drawn = f'<figure style="margin:0">\n{picture}\n</figure>' if picture else ""
        parts = [name, *(table.html() for table in self.tables()), drawn]
        return "\n".join([_OPEN, *(part for part in parts if part), "</div>"])
