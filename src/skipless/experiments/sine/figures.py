"""The report's pictures: accuracy by rank, by stored bytes, ranks of the update, and training loss."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes

from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.measured import FULL_BITS
from skipless.report.pictures.curves import smoothed
from skipless.report.pictures.figure_style import COLOURS
from skipless.report.pictures.panels import Panel, panels_png

CAPTIONS = {
    "sine-accuracy.png": "Accuracy by rank: a line is a mean over seeds, its band a standard deviation, a point a run",
    "sine-bytes.png": "Accuracy by stored bytes: a line for each number of bits, a point for each rank; means",
    "sine-ranks.png": "Effective rank of the update by rank of the adapter, mean over linear maps and seeds",
    "sine-loss.png": "Training loss of the first seed, smoothed",
}
_COLOUR = {
    "lora": COLOURS["skip"],
    "lora, alpha'": COLOURS["init"],
    "sine": COLOURS["skipless"],
    "dora": "#2b8a57",
    "head": "#8a8a8a",
    "all weights": "#222222",
}
# Where the sine is linear, LoRA at alpha' lies below it: wide, so that it is seen.
_WIDTH = {"lora, alpha'": 3.5}
_STYLE = {FULL_BITS: "-", 8: "-", 7: "-", 6: "-", 5: "--", 4: "--", 3: "-.", 2: ":", 1: (0, (1, 4))}


def accuracy_png(found: Sequence[SineRuns]) -> bytes:
    """Accuracy by rank, a panel for each frequency."""

    def draw(cells: Sequence[SineRuns], axes: Axes) -> None:
        for method, own in _by_method(cells).items():
            colour, means = _COLOUR[method], [one.mean() or 0.0 for one in own]
            if method in ("head", "all weights"):
                axes.axhline(means[0], color=colour, linewidth=1, linestyle="--", label=method)
                continue
            ranks, spreads = [one.cell.rank for one in own], [one.spread() for one in own]
            low = [max(0.0, mean - spread) for mean, spread in zip(means, spreads, strict=True)]
            high = [min(100.0, mean + spread) for mean, spread in zip(means, spreads, strict=True)]
            axes.plot(ranks, means, color=colour, label=method, linewidth=_WIDTH.get(method, 1.3))
            axes.fill_between(ranks, low, high, color=colour, alpha=0.12)
            for one in own:
                axes.plot([one.cell.rank] * len(one.top1()), one.top1(), "o", color=colour, markersize=2.5)
        _rank_axis(cells, axes)
        axes.set_ylabel("top-1, %")

    return _by_frequency(found, draw)


def bytes_png(found: Sequence[SineRuns]) -> bytes:
    """Accuracy by stored bytes, a panel for each frequency."""

    def draw(cells: Sequence[SineRuns], axes: Axes) -> None:
        for method, own in _by_method(cells).items():
            for bits in sorted({count for one in own for at in one.at for count in at}, reverse=True):
                sizes = _averages(own, "stored_bytes", bits)
                if method in ("head", "all weights") or not sizes:
                    continue
                label = f"{method}, {'full' if bits == FULL_BITS else f'{bits} bits'}"
                axes.plot(
                    sizes, [one.mean(bits) or 0.0 for one in own], linestyle=_STYLE[bits], color=_COLOUR[method],
                    marker="o", markersize=3, label=label, linewidth=_WIDTH.get(method, 1.2),
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("stored bytes")
        axes.set_ylabel("top-1, %")

    return _by_frequency(found, draw)


def ranks_png(found: Sequence[SineRuns]) -> bytes:
    """Effective rank of the update, a panel for each frequency."""

    def draw(cells: Sequence[SineRuns], axes: Axes) -> None:
        for method, own in _by_method(cells).items():
            values = _averages(own, "effective_rank")
            if method == "head" or not values:
                continue
            if method == "all weights":
                axes.axhline(values[0], color=_COLOUR[method], linewidth=1, linestyle="--", label=method)
                continue
            ranks, width = [one.cell.rank for one in own], _WIDTH.get(method, 1.3)
            axes.plot(ranks, values, "o-", color=_COLOUR[method], markersize=3, label=method, linewidth=width)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        _rank_axis(cells, axes)
        axes.set_ylabel("effective rank of dW")

    return _by_frequency(found, draw)


def loss_png(found: Sequence[SineRuns]) -> bytes:
    """Learning curves, a row of panels for each frequency, a panel for each rank."""
    ranks = sorted({one.cell.rank for one in found if one.cell.rank})
    panels = [
        Panel(
            f"{title or 'all methods'}, rank {rank}",
            partial(_losses, [one for one in cells if one.cell.rank in (0, rank)]),
        )
        for title, cells in _panels(found).items()
        for rank in ranks
    ]
    return panels_png(panels, across=len(ranks))


def _losses(cells: Sequence[SineRuns], axes: Axes) -> None:
    for one in cells:
        if (curve := smoothed(one.runs[0])) is not None:
            style = "--" if not one.cell.rank else "-"
            method = one.cell.method
            width = _WIDTH.get(method, 1.2)
            axes.plot(*curve, style, color=_COLOUR[method], label=method, linewidth=width)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0, top=min(axes.get_ylim()[1], 3.0))


def _by_frequency(found: Sequence[SineRuns], draw: Callable[[Sequence[SineRuns], Axes], None]) -> bytes:
    """A panel for each frequency."""
    panels = [Panel(title or "all methods", partial(draw, cells)) for title, cells in _panels(found).items()]
    return panels_png(panels, across=2)


def _panels(found: Sequence[SineRuns]) -> dict[str, list[SineRuns]]:
    """What shares a panel: the cells of a frequency, and those of none beside them in each."""
    frequencies = sorted({one.cell.frequency for one in found if one.cell.frequency})
    return {
        f"w = {frequency:g}" if frequency else "": [one for one in found if one.cell.frequency in (0.0, frequency)]
        for frequency in frequencies or (0.0,)
    }


def _by_method(cells: Sequence[SineRuns]) -> dict[str, list[SineRuns]]:
    """The cells of a panel that have a number, by method, in the order of their ranks."""
    by_method: dict[str, list[SineRuns]] = {}
    for one in cells:
        if one.mean() is not None:
            by_method.setdefault(one.cell.method, []).append(one)
    return by_method


def _averages(own: Sequence[SineRuns], name: str, bits: int = FULL_BITS) -> list[float]:
    """Means over seeds of each cell; nothing where a cell has none."""
    values = [value for one in own if (value := one.average(name, bits)) is not None]
    return values if len(values) == len(own) else []


def _rank_axis(cells: Sequence[SineRuns], axes: Axes) -> None:
    ranks = sorted({one.cell.rank for one in cells if one.cell.rank})
    axes.set_xscale("log")
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("rank of the adapter")
