"""The report's tables."""

import statistics
from collections.abc import Sequence

from skipless.display import Table
from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.measured import FULL_BITS
from skipless.experiments.sine.paper import PRINTED
from skipless.experiments.sine.recipe import SineCell
from skipless.report.labels import duration, rate
from skipless.report.run_records import Run

_SPREAD = "mean ± sample standard deviation over n seeds"


def accuracy_table(found: Sequence[SineRuns]) -> Table:
    """Accuracy and learning rate: a row for each method and frequency, a column for each rank."""
    ranks = sorted({one.cell.rank for one in found})
    lines: dict[str, dict[int, str]] = {}
    for one in found:
        lines.setdefault(one.cell.line, {})[one.cell.rank] = _cell(one)
    body = [(line, *(said.get(rank, "–") for rank in ranks)) for line, said in lines.items()]
    caption = f"Top-1 in percent on the second half of the classes, {_SPREAD}, and the peak learning rate."
    heads = ("method", *(f"rank {rank}" if rank else "no adapter" for rank in ranks))
    return Table(heads, body, caption, align="l" + "r" * len(ranks))


def bits_table(found: Sequence[SineRuns], bits: Sequence[int]) -> Table:
    """Accuracy at each number of bits, a row for each adapter."""
    columns = _columns(bits)
    body = [
        (one.cell.line, str(one.cell.rank), *(one.shown(count) for count in columns)) for one in found if one.cell.rank
    ]
    caption = f"Top-1 in percent with A and B rounded after training to 2^bits values each, {_SPREAD}."
    return Table(("method", "rank", *map(bits_in_words, columns)), body, caption, align="lr" + "r" * len(columns))


def gains_table(found: Sequence[SineRuns], bits: Sequence[int]) -> Table:
    """Points of the sine above LoRA and above LoRA at alpha', and of DoRA above LoRA, seed by seed."""
    by_cell = {one.cell: one for one in found}
    columns = _columns(bits)
    body = []
    for one in found:
        cell = one.cell
        others = [SineCell("lora", cell.rank)] if cell.method in ("sine", "lora, alpha'", "dora") else []
        others += [SineCell("lora, alpha'", cell.rank, cell.frequency)] if cell.method == "sine" else []
        for other in others:
            if other in by_cell:
                gains = [_gain(one.gained(by_cell[other], count)) for count in columns]
                body.append((cell.line, other.line, str(cell.rank), *gains))
    caption = "Points above the other method, same model and same A, seed by seed: mean ± standard error of the mean."
    heads = ("method", "above", "rank", *map(bits_in_words, columns))
    return Table(heads, body, caption, align="llr" + "r" * len(columns))


def size_table(found: Sequence[SineRuns], bits: Sequence[int]) -> Table:
    """Trained numbers and stored bytes, a row for each kind of adapter and rank."""
    columns = _columns(bits)
    lines: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        parameters = one.average("parameters")
        if parameters is None:
            continue
        stored = (one.average("stored_bytes", count) for count in columns)
        numbers = (f"{parameters:,.0f}", *("–" if size is None else f"{size:,.0f}" for size in stored))
        kind = {"head": "the head alone", "all weights": "all weights", "dora": "dora"}.get(
            one.cell.method, "lora and sine"
        )
        lines.setdefault((kind, str(one.cell.rank or "–"), *numbers), [])
    caption = (
        "Numbers trained beside the head's, and the bytes that they are stored in: whole ones at 4 bytes, quantised "
        "ones packed, codebooks among them. DoRA's magnitudes stay whole."
    )
    heads = ("method", "rank", "trained", *(f"bytes, {bits_in_words(count)}" for count in columns))
    return Table(heads, list(lines), caption, align="lr" + "r" * (1 + len(columns)))


def rank_table(found: Sequence[SineRuns], bits: Sequence[int]) -> Table:
    """How linear the sine is, how large the update, and of which ranks it is at each number of bits."""
    columns = _columns(bits)
    body = []
    for one in found:
        if one.average("parameters") in (None, 0.0):
            continue
        stable = [_number(one.average("stable_rank", count), ".2f") for count in columns]
        effective = [_number(one.average("effective_rank", count), ".2f") for count in columns]
        numbers = (
            _number(one.average("phase_std"), ".3g"),
            _number(one.average("departure"), ".1%"),
            _number(one.average("size"), ".3g"),
        )
        body.append((one.cell.line, str(one.cell.rank or "–"), *numbers, *stable, *effective))
    heads = (
        *("method", "rank", "std of w B A", "departure from alpha'", "size of dW"),
        *(f"stable rank, {bits_in_words(count)}" for count in columns),
        *(f"effective rank, {bits_in_words(count)}" for count in columns),
    )
    caption = (
        "Means over the linear maps of the blocks and over seeds. dW is all that was added to a weight W; its size is "
        "||dW||_F / ||W||_F. Far below 1, w B A is its own sine; departure: ||sine - LoRA at alpha'||_F / ||sine||_F. "
        "DoRA scales rows of W besides, so that its dW has their rank, too."
    )
    return Table(heads, body, caption, align="lr" + "r" * (3 + 2 * len(columns)))


def rates_table(found: Sequence[SineRuns]) -> Table:
    """What each rate of each cell's grid came to on held-out images."""
    body = []
    for one in found:
        tried = (
            f"{rate(lr)}: {'diverged' if top1 is None else f'{top1:.1f}'}" for lr, top1 in sorted(one.tried.items())
        )
        body.append(
            (one.cell.line, str(one.cell.rank or "–"), rate(one.runs[0].learning_rate), ", ".join(tried) or "–")
        )
    caption = "Peak learning rate, and top-1 in percent of each rate that was tried, one run each, on held-out images."
    return Table(("method", "rank", "learning rate", "tried"), body, caption, align="lrrl")


def paper_table() -> Table:
    """What the papers print."""
    heads = ("setting", "rank", "bits", "without the sine", "with it", "paper")
    return Table(heads, [tuple(one) for one in PRINTED], "What the papers print, of other models.", align="lrrrrl")


def runs_table(found: Sequence[SineRuns], bases: Sequence[Run]) -> Table:
    """Every run."""
    body = [("base", "–", *_run_cells(run)) for run in bases]
    body += [(one.cell.line, str(one.cell.rank or "–"), *_run_cells(run)) for one in found for run in one.runs]
    heads = ("method", "rank", "seed", "learning rate", "top-1, %", "final loss", "steps", "time")
    caption = "base: the model that was fine-tuned, on the first half of the classes. Final loss: of the last tenth."
    return Table(heads, body, caption, align="lrrrrrrr")


def bits_in_words(bits: int) -> str:
    """A number of bits as the head of a column.

    Example:
        >>> bits_in_words(32), bits_in_words(4), bits_in_words(1)
        ('full', '4 bits', '1 bit')
    """
    return "full" if bits == FULL_BITS else f"{bits} bit{'s' if bits != 1 else ''}"


def _columns(bits: Sequence[int]) -> list[int]:
    return sorted({FULL_BITS, *bits}, reverse=True)


def _cell(one: SineRuns) -> str:
    reached = len(one.top1())
    lost = f", {len(one.runs) - reached} diverged" if 0 < reached < len(one.runs) else ""
    return f"{one.shown()} (n {reached}{lost}, {rate(one.runs[0].learning_rate)})"


def _gain(gains: Sequence[float]) -> str:
    if not gains:
        return "–"
    error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.1f}" if len(gains) > 1 else ""
    return f"{statistics.fmean(gains):+.1f}{error}"


def _number(value: float | None, kind: str) -> str:
    return "–" if value is None else format(value, kind)


def _run_cells(run: Run) -> tuple[str, ...]:
    top1 = "diverged" if run.top1 is None else f"{run.top1:.2f}"
    loss = "–" if run.final_loss is None else f"{run.final_loss:.4f}"
    return str(run.seed), rate(run.learning_rate), top1, loss, f"{run.steps:,}", duration(run.seconds)
