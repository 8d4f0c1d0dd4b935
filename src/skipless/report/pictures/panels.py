"""Small panels in rows, with one legend for all of them, as a report's picture."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipless.report.pictures.figure_style import COLOURS, print_fonts, style_axes
from skipless.report.pictures.kappa_figure import png

_One = TypeVar("_One")
_SIZE = (3.6, 2.8)  # inches


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: above it, at the left.
        draw: draws into its axes; what it labels stands in the legend.
    """

    title: str
    draw: Callable[[Axes], None]


def by_title(found: Iterable[_One], title: Callable[[_One], str]) -> dict[str, list[_One]]:
    """What shares a panel, by the panel's title, in the order in which titles first come.

    Example:
        >>> by_title([1, 2, 3], lambda number: "odd" if number % 2 else "even")
        {'odd': [1, 3], 'even': [2]}
    """
    panels: dict[str, list[_One]] = {}
    for one in found:
        panels.setdefault(title(one), []).append(one)
    return panels


def panel_each_png(
    found: Iterable[_One], title: Callable[[_One], str], draw: Callable[[list[_One], Axes], None], *, across: int
) -> bytes:
    """A panel for each title, drawn of all that has it.

    Example:
        >>> panel_each_png([1, 2], str, lambda numbers, axes: axes.plot(numbers, numbers), across=2)[1:4]
        b'PNG'
    """
    return panels_png([Panel(name, partial(draw, own)) for name, own in by_title(found, title).items()], across=across)


def panels_png(panels: Sequence[Panel], *, across: int) -> bytes:
    """Panels in rows of so many, and one legend for all of them.

    Example:
        >>> panels_png([Panel("a line", lambda axes: axes.plot([0, 1], label="line"))], across=2)[1:4]
        b'PNG'
    """
    columns = min(across, len(panels))
    rows = -(-len(panels) // columns)
    with style_axes(print_fonts()):
        figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows + 0.4), layout="constrained")
        labels = {}
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            panel.draw(axes)
            axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
            axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
            labels |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        wide = min(len(labels), 2 * columns)
        figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=wide or 1, frameon=False)
        return png(figure)
