"""Figure 1 of the paper: training loss by epoch, AdamW left, SOAP right, a line for each of the three models.

Drawn without pyplot, so nothing global changes and no display is needed. The same runs and the same
matplotlib give the same SVG, byte for byte.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import MaxNLocator

from skipless.report.curves import band, thin
from skipless.report.records import OPTIMIZERS, Cell, OptimizerName, Row, Setting

# The baseline is neutral; orange and blue stay apart in every common colour blindness, and in grey by their lightness.
COLOURS: Mapping[str, str] = {
    "ink": "#1c2127",
    "muted": "#68707a",
    "hairline": "#dfe2e6",
    "skip": "#59626d",
    "skipless": "#d4570a",
    "init": "#1363c6",
}
ROW_COLOUR: Mapping[Row, str] = {"skip": "skip", "skipless": "skipless", "skipless + init": "init"}

_STYLE: Mapping[str, object] = {
    "font.size": 10,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's own typeface
}
_WEB_FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
PRINT_FONTS = ("Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
_PANEL = (5.2, 3.5)  # inches


def figure1_svg(cells: Sequence[Cell], setting: Setting) -> str:
    """Draw both panels side by side as a standalone SVG."""
    return _svg(cells, setting, OPTIMIZERS, background="#ffffff")


def panel_svg(cells: Sequence[Cell], setting: Setting, optimizer: OptimizerName) -> str:
    """Draw one panel for inlining into HTML: transparent, no XML prologue, and colours that follow CSS variables."""
    return for_page(_svg(cells, setting, (optimizer,), background="none"))


def for_page(svg: str) -> str:
    """A standalone SVG as a page takes it in: no XML prologue, no size of its own, colours that are CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def figure1_png(cells: Sequence[Cell], setting: Setting, dpi: int = 200) -> bytes:
    """Draw both panels side by side as a PNG."""
    installed = set(get_font_names())
    with style_axes([font for font in PRINT_FONTS if font in installed]):
        buffer = io.BytesIO()
        _figure(cells, setting, OPTIMIZERS).savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff")
    return buffer.getvalue()


def style_axes(fonts: Sequence[str], salt: str | None = None) -> AbstractContextManager[None]:
    """Draw in this package's style, in these fonts; a salt makes SVG files repeatable."""
    return mpl.rc_context(cast("Any", {**_STYLE, "font.family": list(fonts), "svg.hashsalt": salt}))


def _svg(cells: Sequence[Cell], setting: Setting, optimizers: Sequence[OptimizerName], background: str) -> str:
    salt = f"skipless {' '.join(optimizers)}"  # ids are hashes: fixed for one drawing, different between two on a page
    with style_axes(["DejaVu Sans"], salt):
        buffer = io.StringIO()
        figure = _figure(cells, setting, optimizers)
        figure.savefig(buffer, format="svg", facecolor=background, metadata={"Date": None, "Creator": None})
    return in_readers_font(buffer.getvalue())


def in_readers_font(svg: str) -> str:
    """Text laid out in DejaVu Sans, shown in the reader's own typeface."""
    return svg.replace("'DejaVu Sans'", _WEB_FONTS)


def _figure(cells: Sequence[Cell], setting: Setting, optimizers: Sequence[OptimizerName]) -> Figure:
    width, height = _PANEL
    figure = Figure(figsize=(width * len(optimizers), height))
    top = _loss_limit(cells, setting)
    for index, optimizer in enumerate(optimizers):
        left, right, bottom, ceiling = 0.40, 1.28, 0.55, 0.55  # margins in inches; the right one holds the labels
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


def _draw_panel(axes: Axes, cells: Sequence[Cell], optimizer: OptimizerName, setting: Setting, top: float) -> None:
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
    labels: list[tuple[str, str, float]] = [(row, COLOURS[ROW_COLOUR[row]], min(end, top)) for row, end in ends]
    labels.append((f"chance, ln {setting.classes}", COLOURS["muted"], setting.chance_loss))
    for (text, colour, _), y in zip(labels, spread_apart([y for *_, y in labels], 0.075 * top), strict=True):
        weight = "normal" if text.startswith("chance") else "bold"
        axes.annotate(
            text, (1, y), (8, 0), axes.get_yaxis_transform(), "offset points", va="center", color=colour, weight=weight
        )


def _draw_cell(axes: Axes, cell: Cell) -> float | None:
    """Draw one cell's runs, raw and averaged; return where its line ends, or None where nothing was logged."""
    colour = COLOURS[ROW_COLOUR[cell.row]]
    end = None
    for run in cell.runs:
        epoch, loss = thin(run.epoch, run.loss)
        axes.plot(epoch, loss, color=colour, alpha=0.9 if run.diverged else 0.22, linewidth=0.6)
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
    axes.plot(line.epoch, line.mean, color=colour, linewidth=1.8, solid_capstyle="round")
    return float(line.mean[-1])


def _loss_limit(cells: Sequence[Cell], setting: Setting) -> float:
    """Choose one top for both panels: above chance and every averaged line, unless one is far off."""
    lines = [band([run for run in cell.runs if not run.diverged]) for cell in cells]
    highest = max((float(line.mean.max()) for line in lines if line is not None), default=0.0)
    return 1.08 * max(setting.chance_loss, min(highest, 2 * setting.chance_loss))


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move labels as little as needed until neighbours are `gap` apart; the order stays.

    Example:
        >>> spread_apart([1.0, 5.0, 1.0], gap=1.0)
        [0.5, 5.0, 1.5]
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _low(groups[-1], positions, gap) - _high(groups[-2], positions, gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(positions)
    for group in groups:
        for offset, index in enumerate(group):
            placed[index] = _low(group, positions, gap) + offset * gap
    return placed


def _low(group: Sequence[int], positions: Sequence[float], gap: float) -> float:
    """Lowest place in a group that stays centred on the mean of what it labels."""
    return sum(positions[index] for index in group) / len(group) - gap * (len(group) - 1) / 2


def _high(group: Sequence[int], positions: Sequence[float], gap: float) -> float:
    return _low(group, positions, gap) + gap * (len(group) - 1)
