"""Pictures of both reports: accuracy of every run, accuracy by epoch, and training loss."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes

from skipless.experiments.family.runs import CellRuns
from skipless.experiments.family.tables import method_of
from skipless.report.pictures.curves import smoothed
from skipless.report.pictures.figure_style import COLOURS
from skipless.report.pictures.panels import panel_each_png

CAPTIONS = {
    "attention-accuracy.png": "Accuracy by attention: a point is a run, a bar the mean over seeds",
    "attention-loss.png": "Training loss of the first seed, smoothed",
    "shortcuts-accuracy.png": "Accuracy by length of training: a point is a run, the line is the mean over seeds",
    "shortcuts-epochs.png": "Accuracy by epoch, first seed",
    "shortcuts-loss.png": "Training loss of the first seed, smoothed",
}
_ROW_COLOUR = {
    "skip": COLOURS["skip"],
    "skip, decayed": "#2b8a57",
    "skipless": COLOURS["skipless"],
    "skipless + init": COLOURS["init"],
    "skipless + ours": COLOURS["own"],
}
_KIND_COLOUR = {"V-SkipInit": "#8c564b", "E-SPA": "#17becf", "U-SPA": "#bcbd22", "shaped": "#e377c2"}


def attention_accuracy_png(found: Sequence[CellRuns]) -> bytes:
    """Accuracy of every run, a panel for each optimizer."""

    def draw(cells: Sequence[CellRuns], axes: Axes) -> None:
        kinds = list(dict.fromkeys(one.cell.attention for one in cells))
        rows = list(dict.fromkeys(one.cell.row for one in cells))
        for place, row in enumerate(rows):
            own = [one for one in cells if one.cell.row == row and one.mean is not None]
            at = [kinds.index(one.cell.attention) + 0.8 * ((place + 0.5) / len(rows) - 0.5) for one in own]
            axes.bar(at, [one.mean or 0.0 for one in own], width=0.7 / len(rows), color=_ROW_COLOUR[row], label=row)
            for x, one in zip(at, own, strict=True):
                axes.plot([x] * len(one.accuracies), one.accuracies, "o", color="#222222", markersize=2)
        axes.set_axisbelow(True)
        axes.set_xticks(range(len(kinds)), [kind.replace(" ", "\n") for kind in kinds], fontsize=7)
        axes.set_ylabel("top-1, %")

    return panel_each_png(found, lambda one: one.labels[2], draw, across=2)


def attention_loss_png(found: Sequence[CellRuns]) -> bytes:
    """Learning curves, a panel for each attention and optimizer."""
    draw = partial(_losses, lambda one: (one.cell.row, _ROW_COLOUR[one.cell.row], "-"))
    return panel_each_png(found, lambda one: f"{one.cell.attention}, {one.labels[2]}", draw, across=3)


def shortcuts_accuracy_png(found: Sequence[CellRuns]) -> bytes:
    """Accuracy by length, a panel for each optimizer."""

    def draw(cells: Sequence[CellRuns], axes: Axes) -> None:
        for method in dict.fromkeys(map(_method, cells)):
            own = [one for one in cells if _method(one) == method and one.mean is not None]
            name, colour, style = method
            lengths = [one.cell.length for one in own]
            axes.plot(lengths, [one.mean or 0.0 for one in own], style, color=colour, label=name)
            for one in own:
                axes.plot([one.cell.length] * len(one.accuracies), one.accuracies, "o", color=colour, markersize=3)
        ticks = sorted({one.cell.length for one in cells})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("length of training")
        axes.set_ylabel("top-1, %")

    return panel_each_png(found, lambda one: one.labels[2], draw, across=2)


def shortcuts_epochs_png(found: Sequence[CellRuns]) -> bytes:
    """Accuracy by epoch, a panel for each optimizer and length."""

    def draw(cells: Sequence[CellRuns], axes: Axes) -> None:
        for one in cells:
            name, colour, style = _method(one)
            if one.curves[0]:
                epochs, top1 = zip(*one.curves[0], strict=True)
                axes.plot(epochs, top1, style, marker=".", markersize=3, color=colour, label=name, linewidth=1.2)
        axes.set_xlabel("epoch")
        axes.set_ylabel("top-1, %")

    return panel_each_png(found, _length_panel, draw, across=2)


def shortcuts_loss_png(found: Sequence[CellRuns]) -> bytes:
    """Learning curves, a panel for each optimizer and length."""
    return panel_each_png(found, _length_panel, partial(_losses, _method), across=2)


def _method(one: CellRuns) -> tuple[str, str, str]:
    """Name, colour and line of a cell's method."""
    kind, row = one.cell.attention, one.cell.row
    if kind in _KIND_COLOUR:
        return method_of(one.cell), _KIND_COLOUR[kind], "--" if row == "skipless + ours" else "-"
    return method_of(one.cell), _ROW_COLOUR[row], "-"


def _length_panel(one: CellRuns) -> str:
    return f"{one.labels[2]}, {one.cell.length}x"


def _losses(line: Callable[[CellRuns], tuple[str, str, str]], cells: Sequence[CellRuns], axes: Axes) -> None:
    for one in cells:
        name, colour, style = line(one)
        if (curve := smoothed(one.runs[0])) is not None:
            axes.plot(*curve, style, color=colour, label=name, linewidth=1.2)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0, top=min(axes.get_ylim()[1], 5.0))
