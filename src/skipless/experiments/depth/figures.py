"""Pictures of the depth report: accuracy by depth, tokens by block, and learning curves."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from skipless.display.values import counted
from skipless.experiments.depth.report import DepthRuns
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.pictures.curves import smoothed
from skipless.report.pictures.figure_style import COLOURS
from skipless.report.pictures.panels import panel_each_png

COLOUR: Mapping[str, str] = {
    "skip": COLOURS["skip"],
    "skip + positions": "#2b8a57",
    "skipless": COLOURS["skipless"],
    "skipless + init": COLOURS["init"],
    "skipless + ours": COLOURS["own"],
}
CAPTIONS = {
    "depth-accuracy.png": "Accuracy by number of blocks, a point for each run",
    "depth-tokens.png": "Cosine between an image's tokens after each block: dashed before training, solid after it",
    "depth-loss.png": "Training loss of the first seed, smoothed",
}
_ACROSS = 4


def accuracy_png(found: Sequence[DepthRuns]) -> bytes:
    """Accuracy by number of blocks, a panel for each optimizer."""

    def draw(cells: Sequence[DepthRuns], axes: Axes) -> None:
        for row in dict.fromkeys(one.cell.row for one in cells):
            own = [one for one in cells if one.cell.row == row and one.accuracies]
            depths = [one.cell.depth for one in own]
            axes.plot(depths, [float(np.mean(one.accuracies)) for one in own], color=COLOUR[row], label=row)
            for one in own:
                places = [one.cell.depth] * len(one.accuracies)
                axes.plot(places, one.accuracies, "o", color=COLOUR[row], markersize=3)
        ticks = sorted({one.cell.depth for one in cells})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("blocks")
        axes.set_ylabel("top-1, %")
        axes.set_ylim(top=100.5)

    return panel_each_png(found, lambda one: OPTIMIZER_LABEL[one.cell.optimizer], draw, across=_ACROSS)


def tokens_png(found: Sequence[DepthRuns]) -> bytes:
    """Token cosine by block, before and after training, a panel for each depth and optimizer."""

    def draw(cells: Sequence[DepthRuns], axes: Axes) -> None:
        for one in cells:
            colour = COLOUR[one.cell.row]
            if one.cosine_untrained:
                axes.plot(range(len(one.cosine_untrained)), one.cosine_untrained, "--", color=colour, linewidth=1)
            if one.cosine_trained:
                blocks = range(len(one.cosine_trained))
                axes.plot(blocks, one.cosine_trained, color=colour, linewidth=1.4, label=one.cell.row)
        axes.set_xlabel("block")
        axes.set_ylabel("token cosine")
        axes.set_ylim(-0.1, 1.03)

    return _each_depth_png(found, draw)


def loss_png(found: Sequence[DepthRuns]) -> bytes:
    """Learning curves, a panel for each depth and optimizer."""

    def draw(cells: Sequence[DepthRuns], axes: Axes) -> None:
        for one in cells:
            if (curve := smoothed(one.runs[0])) is not None:
                axes.plot(*curve, color=COLOUR[one.cell.row], label=one.cell.row)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        axes.set_ylim(bottom=0)

    return _each_depth_png(found, draw)


def _each_depth_png(found: Sequence[DepthRuns], draw: Callable[[Sequence[DepthRuns], Axes], None]) -> bytes:
    several = len({one.cell.optimizer for one in found}) > 1

    def title(one: DepthRuns) -> str:
        more = f", {OPTIMIZER_LABEL[one.cell.optimizer]}" if several else ""
        return f"{counted(one.cell.depth, 'block')}{more}"

    shallow_first = sorted(found, key=lambda one: (one.cell.optimizer, one.cell.depth))
    return panel_each_png(shallow_first, title, draw, across=_ACROSS)
