"""Pictures of the report of few bits: what each precision loses, and kurtosis by block."""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipless.experiments.quantisation.report import SITES, QuantisedCell, kurtosis
from skipless.report.figure_style import COLOURS, print_fonts, style_axes
from skipless.studies.quantisation.study import FULL

COLOUR: Mapping[str, str] = {
    "skip": COLOURS["skip"],
    "skip, rotated": "#2b8a57",
    "skipless + init": COLOURS["init"],
    "skipless + ours": COLOURS["own"],
}
CAPTIONS = {
    "quantisation-bits.png": "The score by precision: the line is the mean over seeds, a point is a run",
    "quantisation-kurtosis.png": "Excess kurtosis by block: dashed before training, solid after it, first seed",
}
_PANEL = (3.6, 2.8)  # inches


def bits_png(found: Sequence[QuantisedCell]) -> bytes:
    """The score at each precision, a panel for each optimizer."""

    def draw(axes: Axes, cells: Sequence[QuantisedCell]) -> None:
        names = list(cells[0].results[0].scores)
        for one in cells:
            values = [[result.scores[name] for result in one.results] for name in names]
            colour = COLOUR[one.cell.row]
            axes.plot(range(len(names)), [statistics.fmean(of) for of in values], color=colour, label=one.cell.row)
            for place, of in enumerate(values):
                axes.plot([place] * len(of), of, "o", color=colour, markersize=3)
        axes.set_xticks(range(len(names)), ["full" if name == FULL else name for name in names])
        axes.set_ylabel(cells[0].results[0].metric.name)

    return _png([(name, draw, cells) for name, cells in _by_optimizer(found).items()], across=2)


def kurtosis_png(found: Sequence[QuantisedCell]) -> bytes:
    """Kurtosis of the stream and of the MLP's hidden units by block, a row of panels for each optimizer."""

    def drawn(site: str) -> Callable[[Axes, Sequence[QuantisedCell]], None]:
        def draw(axes: Axes, cells: Sequence[QuantisedCell]) -> None:
            for one in cells:
                colour = COLOUR[one.cell.row]
                before, after = (list(kurtosis(of, site).values()) for of in (one.before, one.results[0]))
                axes.plot(range(len(before)), before, "--", color=colour, linewidth=1)
                axes.plot(range(len(after)), after, color=colour, linewidth=1.4, label=one.cell.row)
            axes.set_yscale("symlog", linthresh=1)
            axes.set_xlabel("block")
            axes.set_ylabel("excess kurtosis")

        return draw

    panels = [(f"{name}, {site}", drawn(site), cells) for name, cells in _by_optimizer(found).items() for site in SITES]
    return _png(panels, across=len(SITES))


def _by_optimizer(found: Sequence[QuantisedCell]) -> dict[str, list[QuantisedCell]]:
    panels: dict[str, list[QuantisedCell]] = {}
    for one in found:
        panels.setdefault(one.name[1], []).append(one)
    return panels


def _png(
    panels: Sequence[tuple[str, Callable[[Axes, Sequence[QuantisedCell]], None], Sequence[QuantisedCell]]],
    *,
    across: int,
) -> bytes:
    """Panels in rows, and one legend for all of them."""
    columns = min(across, len(panels))
    rows = -(-len(panels) // columns)
    with style_axes(print_fonts()):
        figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.4), layout="constrained")
        labels = {}
        for index, (title, draw, cells) in enumerate(panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            draw(axes, cells)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
            labels |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=2, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, facecolor="#ffffff")
    return buffer.getvalue()
