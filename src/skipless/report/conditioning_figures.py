"""Pictures of conditioning: kappa by depth and through training, tokens after each norm, softmax of two logits.

A number that is only known from below is an open triangle, never a point.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipless.report.conditioning import Moment, Number, table5_number
from skipless.report.figure import COLOURS, PRINT_FONTS, style_axes

ROW_COLOUR = {"skip": COLOURS["skip"], "skipless": COLOURS["skipless"], "skipless + init": COLOURS["init"]}
MORE_COLOURS = ("#1363c6", "#d4570a", "#7a3fa0", "#2b8a57", "#9c6b00", "#b03060", "#4f8fa0", "#7d7d2e")


def png(figure: Figure, dpi: int = 160) -> bytes:
    """The picture as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def depth_figure(series: Mapping[str, Sequence[tuple[int, Number]]], label: str, title: str = "") -> bytes:
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
            colour = ROW_COLOUR.get(name.removesuffix(", 8 tokens"), MORE_COLOURS[index % len(MORE_COLOURS)])
            numbers = [found for _, found in points]
            beside = 0.12 * (index - (len(series) - 1) / 2)  # markers of equal numbers stay apart
            _line(axes, [block + beside for block, _ in points], numbers, colour, name)
        _kappa_axis(axes, [found.value for points in series.values() for _, found in points], label)
        axes.set_xlabel("block", loc="right", labelpad=2)
        axes.set_xticks(sorted({block for points in series.values() for block, _ in points}))
        _legend(axes, any(found.bound for points in series.values() for _, found in points), beside=True)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=12)
        return png(figure)


def training_figure(found: Mapping[str, Sequence[Moment]], title: str) -> bytes:
    """Tables 5 and 6 through training: a panel for each measured block and each choice of rows of J."""
    first = next(iter(found.values()))[0].measurement
    panels = [(f"block {block['index']}", _layer(i)) for i, block in enumerate(first["blocks"])]
    panels += [(f"J, {_NETWORK.get(name, name)}", _network(name)) for name in first["networks"]]
    with style_axes([*PRINT_FONTS[-1:]]):
        columns = 3
        figure = Figure(figsize=(4.2 * columns, 3.0 * -(-len(panels) // columns)), layout="constrained")
        for index, (name, get) in enumerate(panels):
            axes = figure.add_subplot(-(-len(panels) // columns), columns, index + 1)
            for row, moments in found.items():
                _line(axes, [m.share for m in moments], [get(m) for m in moments], ROW_COLOUR.get(row, "#000000"), row)
            values = [get(moment).value for moments in found.values() for moment in moments]
            _kappa_axis(axes, values, "kappa of the Gram matrix" if index % columns == 0 else "")
            axes.set_title(name, loc="left", fontsize=10)
            axes.set_xlabel("share of training", loc="right", labelpad=2)
            if index == 0:
                _legend(axes, any(get(m).bound for _, get in panels for ms in found.values() for m in ms))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        return png(figure)


def tokens_figure(columns: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> bytes:
    """Figure 6: histograms of the tokens' entries after the norm before each attention, beside N(0, 1)."""
    depth = max(len(blocks) for blocks in columns.values())
    with style_axes([*PRINT_FONTS[-1:]]):
        figure = Figure(figsize=(3.6 * len(columns), 1.5 * depth + 0.6), layout="constrained")
        for column, (name, blocks) in enumerate(columns.items()):
            for row, block in enumerate(blocks):
                axes = figure.add_subplot(depth, len(columns), row * len(columns) + column + 1)
                found = block["tokens"][0]
                edges = np.array(found["edges"])
                axes.stairs(found["density"], edges, fill=True, color=COLOURS["init"], alpha=0.35)
                grid = np.linspace(edges[0], edges[-1], 201)
                axes.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=COLOURS["ink"], linewidth=0.9)
                axes.set_yticks([])
                axes.spines["left"].set_visible(False)
                label = (
                    f"block {block['index']}\nstd {found['std']:.2f}\nkurtosis {found['excess_kurtosis']:+.1f}\n"
                    f"isotropy {found['isotropy']:.2f}\n({found['gaussian_isotropy']:.2f} if Gaussian)"
                )
                axes.text(0.99, 0.97, label, transform=axes.transAxes, ha="right", va="top", fontsize=7)
                if row == 0:
                    axes.set_title(name, loc="left", fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        return png(figure)


def softmax_figure(maps: Mapping[str, tuple[np.ndarray, Sequence[float], float]], title: str) -> bytes:
    """Figure 5: one softmax matrix of each kind, and kappa over all draws with the paper's single one.

    Args:
        maps: by name, a matrix, kappa of every draw, and the paper's.
        title: above the picture.
    """
    with style_axes([*PRINT_FONTS[-1:]]):
        figure = Figure(figsize=(3.3 * (len(maps) + 1), 3.3), layout="constrained")
        pictures = []
        for index, (name, (matrix, _, _)) in enumerate(maps.items()):
            axes = figure.add_subplot(1, len(maps) + 1, index + 1)
            pictures.append(axes.imshow(matrix, cmap="viridis", vmin=0, vmax=1))
            axes.set_title(name, loc="left", fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
        figure.colorbar(pictures[-1], ax=pictures[-1].axes, shrink=0.8)
        axes = figure.add_subplot(1, len(maps) + 1, len(maps) + 1)
        axes.boxplot(
            [kappas for _, kappas, _ in maps.values()],
            widths=0.5,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": COLOURS["hairline"]},
            medianprops={"color": COLOURS["init"]},
        )
        axes.plot(range(1, len(maps) + 1), [paper for *_, paper in maps.values()], "D", color=COLOURS["ink"])
        axes.set_xticks(range(1, len(maps) + 1), list(maps))
        axes.set_yscale("log")
        axes.set_title("kappa: all draws; the paper's one ◆", loc="left", fontsize=10)
        axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        return png(figure)


_NETWORK = {"spread": "tokens spread", "class": "class token"}


def _layer(index: int) -> Any:
    return lambda moment: moment.layers[index]


def _network(name: str) -> Any:
    return lambda moment: table5_number(moment.measurement, name)


def _line(axes: Axes, x: Sequence[float], numbers: Sequence[Number], colour: str, name: str) -> None:
    values = [found.value for found in numbers]
    axes.plot(x, values, color=colour, linewidth=1.4, label=name, zorder=2)
    for bound, marker, face in ((False, "o", colour), (True, "^", "white")):
        chosen = [i for i, found in enumerate(numbers) if found.bound == bound]
        places = [x[i] for i in chosen], [values[i] for i in chosen]
        axes.plot(*places, linestyle="none", color=colour, markersize=4.5, marker=marker, markerfacecolor=face)


def _kappa_axis(axes: Axes, values: Sequence[float], label: str) -> None:
    axes.set_yscale("log")
    top = 10 * max(*values, 10.0)
    axes.set_ylim(top**-0.04, top)  # kappa is at least 1: a little room below
    axes.set_ylabel(label)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["hairline"], linewidth=0.6)


def _legend(axes: Axes, bounds: bool, *, beside: bool = False) -> None:
    if bounds:
        axes.plot(
            [], [], linestyle="none", marker="^", markerfacecolor="white", color=COLOURS["muted"], label="at least"
        )
    if beside:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axes.legend(frameon=False, fontsize=8, loc="best")
