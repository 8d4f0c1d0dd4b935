"""Figure 1 of the paper: training loss by epoch, a panel for each optimizer, a line for each model."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skipless.choices import Row
from skipless.experiments.supervised.cells import CellRuns, optimizers_of
from skipless.report.labels import OptimizerLabel
from skipless.report.pictures.curves import band, thin
from skipless.report.pictures.figure_style import (
    COLOURS,
    ROW_COLOUR,
    figure_svg,
    inline_svg,
    print_fonts,
    spread_apart,
    style_axes,
)
from skipless.report.run_records import Setting

_PANEL = (5.2, 3.5)  # inches


def figure1_svg(cells: Sequence[CellRuns], setting: Setting) -> str:
    """Draw all panels side by side as a standalone SVG."""
    return _svg(cells, setting, optimizers_of(cells), background="#ffffff")


def panel_svg(cells: Sequence[CellRuns], setting: Setting, optimizer: OptimizerLabel) -> str:
    """Draw one panel for inlining into HTML: transparent, no XML prologue, and colours that follow CSS variables."""
    return inline_svg(_svg(cells, setting, (optimizer,), background="none"))


def figure1_png(cells: Sequence[CellRuns], setting: Setting, dpi: int = 200) -> bytes:
    """Draw all panels side by side as a PNG."""
    with style_axes(print_fonts()):
        buffer = io.BytesIO()
        _figure(cells, setting, optimizers_of(cells)).savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff")
    return buffer.getvalue()


def _svg(cells: Sequence[CellRuns], setting: Setting, optimizers: Sequence[OptimizerLabel], background: str) -> str:
    salt = f"skipless {' '.join(optimizers)}"  # ids are hashes: fixed for one drawing, different between two on a page
    with style_axes(["DejaVu Sans"], salt):
        return figure_svg(_figure(cells, setting, optimizers), background=background)


def _figure(cells: Sequence[CellRuns], setting: Setting, optimizers: Sequence[OptimizerLabel]) -> Figure:
    width, height = _PANEL
    figure = Figure(figsize=(width * len(optimizers), height))
    top = _loss_limit(cells, setting)
    for index, optimizer in enumerate(optimizers):
        left, right, bottom, ceiling = 0.40, 1.42, 0.55, 0.55  # margins in inches; the right one holds the labels
        axes = figure.add_axes(
            (
                (index * width + left) / (width * len(optimizers)),
                bottom / height,
                (width - left - right) / (width * len(optimizers)),
                (height - bottom - ceiling) / height,
            )
        )
        _draw_panel(axes, [cell for cell in cells if cell.optimizer == optimizer], optimizer, setting, top)
    return figure


def _draw_panel(axes: Axes, cells: Sequence[CellRuns], optimizer: OptimizerLabel, setting: Setting, top: float) -> None:
    axes.set_xlim(0, setting.epochs)
    axes.set_ylim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=setting.epochs > 5, steps=[1, 2, 5, 10]))
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
    axes.set_xlabel("epoch", loc="right", labelpad=2)
    axes.text(0, 1.11, optimizer, transform=axes.transAxes, fontsize=12, fontweight="bold")
    axes.text(0, 1.035, "training loss", transform=axes.transAxes, color=COLOURS["muted"], fontsize=9)
    axes.axhline(setting.chance_loss, color=COLOURS["muted"], linewidth=0.8, dashes=(2, 2))
    ends: list[tuple[Row, float]] = [(cell.row, end) for cell in cells if (end := _draw_cell(axes, cell)) is not None]
    labels: list[tuple[str, str, float]] = [(row, ROW_COLOUR[row], min(end, top)) for row, end in ends]
    labels.append((f"chance, ln {setting.classes}", COLOURS["muted"], setting.chance_loss))
    for (text, colour, _), y in zip(labels, spread_apart([y for *_, y in labels], 0.075 * top), strict=True):
        weight = "normal" if text.startswith("chance") else "bold"
        axes.annotate(
            text, (1, y), (8, 0), axes.get_yaxis_transform(), "offset points", va="center", color=colour, weight=weight
        )


def _draw_cell(axes: Axes, cell: CellRuns) -> float | None:
    """Draw one cell's runs, as logged and averaged; return where its line ends, or None where nothing was logged."""
    colour = ROW_COLOUR[cell.row]
    end = None
    for run in cell.runs:
        epoch, loss = thin(run.epoch, run.loss)
        if run.diverged:
            axes.plot(epoch, loss, color=colour, alpha=0.9, linewidth=0.6)
        else:  # dots, since a line so close to the averaged one is hidden by it
            axes.plot(epoch, loss, ".", color=colour, alpha=0.5, markersize=4, markeredgewidth=0)
        if run.diverged and run.epoch.size:
            axes.plot(epoch[-1:], np.minimum(loss[-1:], axes.get_ylim()[1]), "x", color=colour, clip_on=False)
            end = float(loss[-1])
    line = band([run for run in cell.runs if not run.diverged])
    if line is None:
        return end
    if line.spread is not None:
        axes.fill_between(
            line.epoch, line.mean - line.spread, line.mean + line.spread, color=colour, alpha=0.18, linewidth=0
        )
    axes.plot(line.epoch, line.mean, color=colour, linewidth=1.4, solid_capstyle="round")
    return float(line.mean[-1])


def _loss_limit(cells: Sequence[CellRuns], setting: Setting) -> float:
    """Choose one top for all panels: above chance and every averaged line, unless one is far off."""
    lines = [band([run for run in cell.runs if not run.diverged]) for cell in cells]
    highest = max((float(line.mean.max()) for line in lines if line is not None), default=0.0)
    return 1.08 * max(setting.chance_loss, min(highest, 2 * setting.chance_loss))
