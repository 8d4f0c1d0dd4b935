"""The pictures of Table 7: losses beside what counting tokens reaches, and tokens by block."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipless.evaluators.language import TextFloors
from skipless.experiments.language.report import LanguageRuns
from skipless.experiments.language.scales import LanguageRow
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.pictures.curves import smooth
from skipless.report.pictures.figure_style import COLOURS, print_fonts, style_axes
from skipless.report.pictures.kappa_figure import png
from skipless.report.pictures.panels import by_title

COLOUR: Mapping[LanguageRow, str] = {
    "skip": COLOURS["skip"],
    "skipless": COLOURS["skipless"],
    "skipless + init": COLOURS["init"],
    "skipless + init, compensated": COLOURS["init"],
    "skipless + init, sharp": COLOURS["init"],
    "skipless + ours": COLOURS["own"],
}
STYLE: Mapping[LanguageRow, str] = {"skipless + init": ":", "skipless + init, compensated": "--"}
_MARKER: Mapping[LanguageRow, str] = {"skipless + init": "o", "skipless + init, compensated": "s"}
CAPTIONS = {
    "table7-loss.png": "Loss of the first seed: lines on training text, smoothed; points on held-out text. Grey: what "
    "counts of tokens, and of pairs of tokens, reach on the held-out text",
    "table7-tokens.png": "Mean attention weight of a token on itself, and mean cosine between the tokens of a window, "
    "by block: dashed before training, solid after it",
}
_TOKENS = {"diagonal": "weight on the own token", "cosine": "token cosine"}
_PANEL = (5.2, 3.6)  # inches


def loss_png(found: Sequence[LanguageRuns], floors: TextFloors) -> bytes:
    """Training and held-out loss by step, a panel for each optimizer."""
    panels = by_title(found, lambda one: OPTIMIZER_LABEL[one.cell.optimizer])
    with style_axes(print_fonts()):
        figure = Figure(figsize=(_PANEL[0] * len(panels), _PANEL[1] + 0.5), layout="constrained")
        labels = {}
        for index, (title, cells) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), index + 1)
            for one in cells:
                _lines(axes, one)
            _floors(axes, floors, [loss for one in cells for loss in one.losses])
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            labels |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
        return png(figure)


def tokens_png(found: Sequence[LanguageRuns]) -> bytes:
    """Attention diagonal and token cosine by block, before and after training: a column for each optimizer."""
    columns = by_title(found, lambda one: OPTIMIZER_LABEL[one.cell.optimizer])
    with style_axes(print_fonts()):
        figure = Figure(figsize=(_PANEL[0] * len(columns), 1.6 * _PANEL[1] + 0.5), layout="constrained")
        labels = {}
        for place, (title, cells) in enumerate(columns.items()):
            for row, (what, label) in enumerate(_TOKENS.items()):
                axes = figure.add_subplot(2, len(columns), row * len(columns) + place + 1)
                for one in cells:
                    _token_lines(axes, one, what)
                axes.set_ylim(-0.05, 1.05)
                axes.set_ylabel(label)
                axes.set_xlabel("block", loc="right", labelpad=2)
                axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
                axes.set_title("" if row else title, loc="left", fontsize=10, fontweight="bold")
                labels |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
        return png(figure)


def _token_lines(axes: Axes, one: LanguageRuns, what: str) -> None:
    colour, marker = COLOUR[one.cell.row], _MARKER.get(one.cell.row, "")
    before, after = (one.tokens.get(f"{what}_{when}", ()) for when in ("untrained", "trained"))
    if before:
        axes.plot(range(len(before)), before, "--", color=colour, linewidth=0.9, marker=marker, markersize=3)
    if after:
        blocks = range(len(after))
        axes.plot(blocks, after, color=colour, linewidth=1.4, marker=marker, markersize=3, label=one.cell.row)


def _lines(axes: Axes, one: LanguageRuns) -> None:
    """Training loss as a line, evaluations as points."""
    run, colour, style = one.runs[0], COLOUR[one.cell.row], STYLE.get(one.cell.row, "-")
    if run.epoch.size > 1 and run.steps:
        step = run.epoch / run.epoch[-1] * run.steps
        at = np.linspace(step[0], step[-1], 200)
        width = max(0.015 * float(step[-1] - step[0]), float(np.median(np.diff(step))))
        axes.plot(at, smooth(step, run.loss, at, width), style, color=colour, linewidth=1.3, label=one.cell.row)
    if points := one.held_out():
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=3)


def _floors(axes: Axes, floors: TextFloors, reached: Sequence[float]) -> None:
    """What counting reaches, and the frame around what lies between."""
    for name, level in (("tokens", floors.unigram), ("pairs of tokens", floors.bigram)):
        axes.axhline(level, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7,
                      color=COLOURS["muted"])  # fmt: skip
    axes.set_ylim(top=max(floors.unigram, *reached) + 0.1 * max(floors.unigram - floors.bigram, 0.1) + 0.1)
    axes.set_xlabel("step", loc="right", labelpad=2)
    axes.set_ylabel("loss, nats a token")
    axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
