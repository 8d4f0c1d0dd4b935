"""Pictures of the report of few bits: what each precision loses, and kurtosis by block."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes

from skipless.experiments.quantisation.report import SITES, QuantisedCell, kurtosis
from skipless.experiments.quantisation.scales import ROTATED
from skipless.report.pictures.figure_style import COLOURS
from skipless.report.pictures.panels import Panel, by_title, panel_each_png, panels_png
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
    "quantisation-training.png": "Excess kurtosis through training, the mean over blocks, a line for each run",
}


def bits_png(found: Sequence[QuantisedCell]) -> bytes:
    """The score at each precision, a panel for each optimizer."""
    return panel_each_png(found, _optimizer, _scores, across=2)


def kurtosis_png(found: Sequence[QuantisedCell]) -> bytes:
    """Kurtosis of the stream and of the MLP's hidden units by block, a row of panels for each optimizer."""
    return _by_site(found, _kurtosis)


def training_png(found: Sequence[QuantisedCell]) -> bytes:
    """Kurtosis of the stream and of the MLP's hidden units through training, a row of panels for each optimizer."""
    return _by_site(found, _training)


def _by_site(found: Sequence[QuantisedCell], draw: Callable[[Sequence[QuantisedCell], str, Axes], None]) -> bytes:
    """A row of panels for each optimizer, one for each site."""
    panels = [
        Panel(f"{name}, {site}", partial(draw, cells, site))
        for name, cells in by_title(found, _optimizer).items()
        for site in SITES
    ]
    return panels_png(panels, across=len(SITES))


def _optimizer(one: QuantisedCell) -> str:
    return one.name[1]


def _scores(cells: Sequence[QuantisedCell], axes: Axes) -> None:
    names = list(cells[0].results[0].scores)
    for one in cells:
        values = [[result.scores[name] for result in one.results] for name in names]
        colour = COLOUR[one.cell.row]
        means = [statistics.fmean(of) for of in values]
        dashed = "--" if one.cell.row == ROTATED else "-"  # it may lie on the model that is not rotated
        axes.plot(range(len(names)), means, dashed, color=colour, label=one.cell.row)
        for place, of in enumerate(values):
            axes.plot([place] * len(of), of, "o", color=colour, markersize=3)
    axes.set_xticks(range(len(names)), ["full" if name == FULL else name for name in names])
    axes.set_ylabel(cells[0].results[0].metric.name)


def _kurtosis(cells: Sequence[QuantisedCell], site: str, axes: Axes) -> None:
    for one in cells:
        colour = COLOUR[one.cell.row]
        before, after = (list(kurtosis(of, site).values()) for of in (one.before, one.results[0]))
        axes.plot(range(len(before)), before, "--", color=colour, linewidth=1)
        axes.plot(range(len(after)), after, color=colour, linewidth=1.4, label=one.cell.row)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("block")
    axes.set_ylabel("excess kurtosis")


def _training(cells: Sequence[QuantisedCell], site: str, axes: Axes) -> None:
    for one in cells:
        if one.cell.row == ROTATED:
            continue  # its runs are those of the residual model, whose kurtosis was measured
        for moments in one.followed:  # none of a run that was trained elsewhere
            by_share = {share: by[site] for share, by in moments if site in by}
            shares, values = list(by_share), list(by_share.values())
            axes.plot(shares, values, color=COLOUR[one.cell.row], linewidth=1, label=one.cell.row)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("share of the training")
    axes.set_ylabel("excess kurtosis")
