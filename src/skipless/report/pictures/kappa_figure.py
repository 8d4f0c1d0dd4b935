"""Pictures of condition numbers. One that is only known from below is an open triangle, never a point."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipless.display.axes import bounded_line, colour_of, explain_bounds, kappa_axis
from skipless.report.condition_number import ConditionNumber
from skipless.report.pictures.figure_style import PRINT_FONTS, row_colour, style_axes
from skipless.report.write_files import as_utf8


def png(figure: Figure, dpi: int = 160) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def depth_figure(series: Mapping[str, Sequence[tuple[int, ConditionNumber]]], label: str, title: str = "") -> bytes:
    """Kappa by block, a line a series: the log axis starts at 1, where a condition number does.

    Args:
        series: (block, kappa) by name.
        label: what the numbers are.
        title: above the picture.
    """
    with style_axes([*PRINT_FONTS[-1:]]):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(series.items()):
            colour = row_colour(name.removesuffix(", 8 tokens"), colour_of(index))
            numbers = [found for _, found in points]
            beside = 0.12 * (index - (len(series) - 1) / 2)  # markers of equal numbers stay apart
            kappa_line(axes, [block + beside for block, _ in points], numbers, colour, name)
        kappa_axis(axes, [found.value for points in series.values() for _, found in points], label)
        axes.set_xlabel("block", loc="right", labelpad=2)
        axes.set_xticks(sorted({block for points in series.values() for block, _ in points}))
        kappa_legend(axes, any(found.bound for points in series.values() for _, found in points), beside=True)
        axes.set_title(as_utf8(title).decode(), loc="left", fontsize=11, fontweight="bold", pad=12)
        return png(figure)


def kappa_line(axes: Axes, x: Sequence[float], numbers: Sequence[ConditionNumber], colour: str, name: str) -> None:
    """Draw numbers and the line through them."""
    bounded_line(axes, x, [found.value for found in numbers], [found.bound for found in numbers], colour, name)


def kappa_legend(axes: Axes, bounds: bool, *, beside: bool = False) -> None:
    """Name the lines, and the triangles if there are any."""
    if bounds:
        explain_bounds(axes)
    if beside:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axes.legend(frameon=False, fontsize=8, loc="best")
