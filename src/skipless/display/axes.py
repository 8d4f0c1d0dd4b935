"""Parts of pictures that several results draw: lines that may be bounds, bars, and lines by block."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from skipless.display.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_COLOURS = ("#1363c6", "#d4570a", "#7a3fa0", "#2b8a57", "#9c6b00", "#b03060", "#4f8fa0", "#7d7d2e")
_LONGEST = 72  # letters of a name beside a line
_LONGEST_TICK = 24  # letters of a name below the picture
_LETTERS = 60  # beside one another below a picture
_NAMED_TICKS = 16  # more names than this cannot be read beside one another


def colour_of(index: int) -> str:
    """The colour of a picture's n-th line."""
    return LINE_COLOURS[index % len(LINE_COLOURS)]


def bounded_line(
    axes: "Axes", x: Sequence[float], values: Sequence[float], bounds: Sequence[bool], colour: str, name: str
) -> None:
    """Draw numbers and the line through them; one that is only known from below is an open triangle."""
    axes.plot(x, values, color=colour, linewidth=1.4, label=name, zorder=2)
    for bound, marker, face in ((False, "o", colour), (True, "^", "white")):
        chosen = [i for i, found in enumerate(bounds) if found == bound]
        places = [x[i] for i in chosen], [values[i] for i in chosen]
        axes.plot(*places, linestyle="none", color=colour, markersize=4.5, marker=marker, markerfacecolor=face)


def explain_bounds(axes: "Axes") -> None:
    """An entry of the legend for the triangles of `bounded_line`."""
    axes.plot([], [], linestyle="none", marker="^", markerfacecolor="white", color=COLOURS["muted"], label="at least")


def kappa_axis(axes: "Axes", values: Sequence[float], label: str) -> None:
    """A log axis that starts at 1, where a condition number does."""
    axes.set_yscale("log")
    top = 10 * max(*values, 10.0)
    axes.set_ylim(top**-0.04, top)  # kappa is at least 1: a little room below
    axes.set_ylabel(label)
    ruled(axes)


def ruled(axes: "Axes", axis: str = "y") -> None:
    """Thin lines behind what is drawn."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis, color=COLOURS["hairline"], linewidth=0.6)  # pyright: ignore[reportArgumentType]


def legend(axes: "Axes", *, above: bool = False) -> None:
    """Name the lines, where there is more than one thing to name.

    Args:
        axes: with lines that have labels.
        above: above the picture, where long names have room; beside it otherwise.
    """
    if len(axes.get_legend_handles_labels()[1]) > 1:
        place, corner = ("lower left", (0.0, 1.02)) if above else ("upper left", (1.01, 1.0))
        axes.legend(frameon=False, fontsize=8, loc=place, bbox_to_anchor=corner, labelcolor=COLOURS["ink"])


def as_label(name: str) -> str:
    """A name as matplotlib takes it for what it is: no dollar starts a formula, no line is left out of the legend."""
    shown = _shortened(name, _LONGEST).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[-longest // 2 + 1 :]}"


def name_ticks(axes: "Axes", names: Sequence[str]) -> None:
    """Names below the positions 0, 1, ...; of many, as many as fit."""
    names = [_shortened(name, _LONGEST_TICK) for name in names]
    step = -(-len(names) // _NAMED_TICKS)
    places = range(0, len(names), step) if names else []
    lengths = [len(name) for name in names[::step]]
    room = _LETTERS / max(len(lengths), 1)  # of a name, before it meets the next
    tilted = sum(lengths) > _LETTERS or any((one + other) / 2 > room for one, other in pairwise(lengths))
    axes.set_xticks(
        list(places), [names[i] for i in places], rotation=40 if tilted else 0, ha="right" if tilted else "center"
    )


def lines_by_name(
    axes: "Axes", names: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str, below: str = "block"
) -> None:
    """A line a series over the same names; None leaves a gap.

    Args:
        axes: axes to draw into.
        names: of the positions, such as blocks.
        series: values at these positions, by name.
        label: what the values are, with their unit.
        below: what the names are.
    """
    for index, (name, values) in enumerate(series.items()):
        known = [float("nan") if value is None else value for value in values]
        axes.plot(
            range(len(known)),
            known,
            marker="o",
            markersize=4.5,
            linewidth=1.4,
            color=colour_of(index),
            label=as_label(name),
        )
    name_ticks(axes, names)
    axes.set_xlabel(below, loc="right", labelpad=2)
    axes.set_ylabel(label)
    ruled(axes)


def from_zero(axes: "Axes") -> None:
    """Let the axis of the values start at 0, with a little room above the highest."""
    axes.set_ylim(0.0, 1.05 * max(axes.get_ylim()[1], 1e-9))


def level(axes: "Axes", value: float, name: str) -> None:
    """A dashed line at a value that others are compared with."""
    axes.axhline(value, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), label=name, zorder=1)


def bars(axes: "Axes", values: Mapping[str, float], label: str) -> None:
    """A horizontal bar for each value, the first at the top.

    Args:
        axes: axes to draw into.
        values: by name.
        label: what the values are, with their unit.
    """
    places = range(len(values))
    axes.barh(places, list(values.values()), color=COLOURS["init"], height=0.6)
    axes.set_yticks(list(places), list(values))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    ruled(axes, "x")
