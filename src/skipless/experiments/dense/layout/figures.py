"""Pictures of dense evaluation: scores through pretraining (Figure 2) and by depth, and the loss (Figure 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skipless.choices import OptimizerName, Row
from skipless.experiments.dense.layout.table import Value
from skipless.experiments.dense.pretraining.history import Pretraining
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.pictures.curves import band, thin
from skipless.report.pictures.figure_style import COLOURS, ROW_COLOUR, print_fonts, style_axes

_DASHES: Mapping[OptimizerName, tuple[int, ...]] = {"adamw": (), "soap": (4, 2), "muon": (1, 1)}
_MARKERS = {"adamw": "o", "soap": "s", "muon": "^"}
_PANEL = (3.3, 2.5)  # inches
_TICKS = 8
_TOP, _LEGEND, _BOTTOM = 0.4, 0.2, 0.25  # for the title, a row of the legend, and the axis' name


@dataclass(frozen=True)
class Curve:
    """A line of a panel.

    Attributes:
        row: the model.
        optimizer: `adamw`, `soap` or `muon`.
        points: position and what was found there; where nothing was, there is no point.
    """

    row: Row
    optimizer: OptimizerName
    points: tuple[tuple[float, Value], ...]


@dataclass(frozen=True)
class Panel:
    """A pair of axes.

    Attributes:
        title: above it.
        curves: in it.
        floor: what must be beaten, a dotted line; None for none.
        paper: draw the paper's numbers instead of ours.
    """

    title: str
    curves: tuple[Curve, ...]
    floor: float | None = None
    paper: bool = False


@dataclass(frozen=True)
class Words:
    """What is written on a figure: its title, the names of its axes, and what the dotted line is."""

    title: str
    x: str
    y: str
    floor: str = ""


def panels_figure(grid: Sequence[Sequence[Panel]], words: Words, *, shared: bool = True) -> Figure:
    """Rows of panels; those of one column share their y-axis, as in the paper's Figure 2, unless told otherwise."""
    with style_axes(print_fonts()):
        figure, axes = _axes(
            len(grid), len(grid[0]), words.title, _rows([c for row in grid for p in row for c in p.curves])
        )
        for column in range(len(grid[0])):
            for index, row in enumerate(grid):
                low, high = _limits([other[column] for other in grid] if shared else [row[column]])
                _draw(axes[index][column], row[column], words)
                axes[index][column].set_ylim(low, high)
                axes[index][column].set_ylabel(words.y if column == 0 else "")
                axes[index][column].set_xlabel(words.x if index == len(grid) - 1 else "", loc="right", labelpad=2)
        _legend(figure, [curve for row in grid for panel in row for curve in panel.curves], words.floor)
        return figure


def loss_figure(runs: Sequence[Pretraining], words: Words) -> Figure:
    """Figure 9: training loss by epoch, a panel an optimizer; raw losses behind their mean over the seeds."""
    optimizers: list[OptimizerName] = [name for name in _DASHES if any(one.optimizer == name for one in runs)]
    with style_axes(print_fonts()):
        figure, axes = _axes(1, len(optimizers), words.title, 1, width=4.6, height=3.2)
        top = _loss_limit(runs)
        for column, optimizer in enumerate(optimizers):
            place = axes[0][column]
            _style(place, OPTIMIZER_LABEL[optimizer])
            place.axhline(runs[0].unlearnt, color=COLOURS["muted"], linewidth=0.9, dashes=(1, 2))
            for row, of_row in _by_row([one for one in runs if one.optimizer == optimizer]).items():
                _losses(place, of_row, ROW_COLOUR[row], top)
            place.set_ylim(0, top)
            place.set_xlim(0, max(float(one.run.epoch[-1]) for one in runs if one.run.epoch.size))
            place.set_xlabel(words.x, loc="right", labelpad=2)
            place.set_ylabel(words.y if column == 0 else "")
        curves = [Curve(one.row, "adamw", ()) for one in runs]
        _legend(figure, curves, words.floor, markers=False)
        return figure


def _losses(axes: Axes, runs: Sequence[Pretraining], colour: str, top: float) -> None:
    for one in runs:
        epoch, loss = thin(one.run.epoch, one.run.loss)
        axes.plot(epoch, loss, color=colour, alpha=0.9 if one.run.diverged else 0.2, linewidth=0.6)
        if one.run.diverged and one.run.epoch.size:
            axes.plot(epoch[-1:], np.minimum(loss[-1:], top), "x", color=colour, clip_on=False)
    line = band([one.run for one in runs if not one.run.diverged])
    if line is None:
        return
    if line.spread is not None:
        low, high = line.mean - line.spread, line.mean + line.spread
        axes.fill_between(line.epoch, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(line.epoch, line.mean, color=colour, linewidth=1.7)


def _loss_limit(runs: Sequence[Pretraining]) -> float:
    """Above what nothing learnt costs and every averaged line, unless one is far off."""
    floor = runs[0].unlearnt
    lines = [band([one.run]) for one in runs if not one.run.diverged]
    highest = max((float(line.mean.max()) for line in lines if line is not None), default=0.0)
    return 1.06 * max(floor, min(highest, 2 * floor))


def _rows(curves: Sequence[Curve]) -> int:
    """Rows of the legend: one an optimizer."""
    return max(1, len({curve.optimizer for curve in curves}))


def _by_row(runs: Sequence[Pretraining]) -> Mapping[Row, list[Pretraining]]:
    return {row: [one for one in runs if one.row == row] for row in ROW_COLOUR if any(o.row == row for o in runs)}


def _axes(
    rows: int, columns: int, title: str, legend: int, *, width: float = _PANEL[0], height: float = _PANEL[1]
) -> tuple[Figure, list[list[Axes]]]:
    total = (width * columns, height * rows + _TOP + _LEGEND * legend + _BOTTOM)
    figure = Figure(figsize=total)
    figure.text(0.14 / total[0], 1 - 0.26 / total[1], title, fontsize=12, fontweight="bold", ha="left")
    made = []
    for row in range(rows):
        bottom = (_BOTTOM + height * (rows - 1 - row) + 0.24) / total[1]
        places = [((width * c + 0.52) / total[0], bottom) for c in range(columns)]
        size = ((width - 0.66) / total[0], (height - 0.62) / total[1])
        made.append([figure.add_axes((*place, *size)) for place in places])
    return figure, made


def _draw(axes: Axes, panel: Panel, words: Words) -> None:
    _style(axes, panel.title)
    if panel.floor is not None:
        axes.axhline(panel.floor, color=COLOURS["muted"], linewidth=0.9, dashes=(1, 2))
    for curve in panel.curves:
        found = [(x, value.paper if panel.paper else value.mean, value.spread) for x, value in curve.points]
        known = [(x, y, spread) for x, y, spread in found if y is not None]
        if not known:
            continue
        x, y, spread = (list(column) for column in zip(*known, strict=True))
        colour = ROW_COLOUR[curve.row]
        style = {"color": colour, "marker": _MARKERS[curve.optimizer], "markersize": 4, "linewidth": 1.4}
        axes.plot(x, y, dashes=_DASHES[curve.optimizer] or (None, None), **style)
        if not panel.paper and any(value is not None for value in spread):
            axes.errorbar(x, y, [s or 0.0 for s in spread], color=colour, linestyle="none", elinewidth=1, capsize=2)
    places = sorted({x for curve in panel.curves for x, _ in curve.points})
    if len(places) <= _TICKS:
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.set_xlim(places[0] - 0.05 * (span := places[-1] - places[0] or 1.0), places[-1] + 0.05 * span)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _style(axes: Axes, title: str) -> None:
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
    axes.set_title(title, loc="left", fontsize=10)


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    values = [
        y
        for panel in panels
        for curve in panel.curves
        for _, value in curve.points
        if (y := value.paper if panel.paper else value.mean) is not None
    ]
    values += [panel.floor for panel in panels if panel.floor is not None]
    if not values:
        return 0.0, 1.0
    room = 0.08 * max(max(values) - min(values), 12.0 * (max(values) < 1))
    low = max(0.0, min(values) - room)
    return low, max(values) + max(room, 0.1)


def _legend(figure: Figure, curves: Sequence[Curve], floor: str, *, markers: bool = True) -> None:
    keys: dict[tuple[Row, OptimizerName], None] = dict.fromkeys((curve.row, curve.optimizer) for curve in curves)
    optimizers = len({optimizer for _, optimizer in keys})
    handles, names = [], []
    any_axes = figure.axes[0]
    for row, optimizer in sorted(keys, key=lambda key: list(ROW_COLOUR).index(key[0])):  # one above the other
        style = {"marker": _MARKERS[optimizer], "markersize": 4} if markers else {}
        dashes = _DASHES[optimizer] or (None, None)
        handles += any_axes.plot([], [], color=ROW_COLOUR[row], linewidth=1.4, dashes=dashes, **style)
        names.append(f"{row}, {OPTIMIZER_LABEL[optimizer]}" if optimizers > 1 else row)
    if floor:
        handles += any_axes.plot([], [], color=COLOURS["muted"], linewidth=0.9, dashes=(1, 2))
        names.append(floor)
    width, height = figure.get_size_inches()
    columns = -(-len(names) // optimizers)
    place = (0.05 / width, 1 - 0.3 / height)
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=place, ncols=columns, frameon=False, fontsize=8.5)
