"""Pictures of conditioning: kappa through training, tokens after each norm, softmax of two logits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from skipless.display.axes import kappa_axis
from skipless.experiments.conditioning.report import Moment, table5_number
from skipless.report.pictures.figure_style import COLOURS, PRINT_FONTS, row_colour, style_axes
from skipless.report.pictures.kappa_figure import kappa_legend, kappa_line, png


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
                kappa_line(axes, [m.share for m in moments], [get(m) for m in moments], row_colour(row, "#000000"), row)
            values = [get(moment).value for moments in found.values() for moment in moments]
            kappa_axis(axes, values, "kappa of the Gram matrix" if index % columns == 0 else "")
            axes.set_title(name, loc="left", fontsize=10)
            axes.set_xlabel("share of training", loc="right", labelpad=2)
            if index == 0:
                kappa_legend(axes, any(get(m).bound for _, get in panels for ms in found.values() for m in ms))
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
