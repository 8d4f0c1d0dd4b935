"""The tables of both reports."""

from collections.abc import Sequence
from typing import get_args

from skipless.display import Table
from skipless.experiments.family.paper import Printed
from skipless.experiments.family.recipe import METHODS, FamilyCell
from skipless.experiments.family.runs import CellRuns
from skipless.experiments.family.scales import FamilyRow
from skipless.report.labels import NOT_RUN, duration, rate


def attention_table(found: Sequence[CellRuns]) -> Table:
    """Accuracy and learning rate: a row for each attention and optimizer, a column for each row of Table 1."""
    rows = [row for row in get_args(FamilyRow) if any(one.cell.row == row for one in found)]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        attention, row, optimizer = one.labels
        lines.setdefault((attention, optimizer), {})[row] = _cell(one)
    body = [(*names, *(said.get(row, NOT_RUN) for row in rows)) for names, said in lines.items()]
    return Table(("attention", "optimizer", *rows), body, _CAPTION, align="ll" + "r" * len(rows))


def shortcuts_table(found: Sequence[CellRuns]) -> Table:
    """Accuracy and learning rate: a row for each method and optimizer, a column for each length."""
    lengths = sorted({one.cell.length for one in found})
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for one in found:
        lines.setdefault((method_of(one.cell), one.labels[2]), {})[one.cell.length] = _cell(one)
    body = [(*names, *(said.get(length, NOT_RUN) for length in lengths)) for names, said in lines.items()]
    heads = ("method", "optimizer", *(_times(length) for length in lengths))
    return Table(heads, body, _CAPTION, align="ll" + "r" * len(lengths))


def steps_table(found: Sequence[CellRuns]) -> Table:
    """How many epochs each method takes to come to the residual model's accuracy at the shortest length."""
    shortest = min(one.cell.length for one in found)
    body = []
    for one in found:
        aim = next(
            (aim for aim in found if aim.cell == FamilyCell("softmax", "skip", one.cell.optimizer, shortest)), None
        )
        if aim is None or aim.mean is None:
            continue
        first = one.epochs_to(aim.mean)
        had = f"{sum(first) / len(first):.0f}" if first else "never"
        epochs = max((curve[-1][0] for curve in one.curves if curve), default=0.0)
        share = f"{len(first)} of {len(one.runs)}"
        body.append((method_of(one.cell), one.labels[2], _times(one.cell.length), f"{epochs:.0f}", had, share))
    caption = (
        f"Epochs after which a run first has the residual model's mean accuracy at {_times(shortest)}: the mean over "
        "the runs that come to it, and how many do. Runs are evaluated once an epoch."
    )
    heads = ("method", "optimizer", "length", "epochs of the run", "epochs to it", "runs")
    return Table(heads, body, caption, align="llrrrr")


def token_table(found: Sequence[CellRuns]) -> Table:
    """Token cosine after the last block and the mean A_ii of the first and the last, before training and after it."""
    body = []
    for one in found:
        cosines = [one.tokens.get(f"cosine_{state}") for state in ("untrained", "trained")]
        diagonals = [one.tokens.get(f"diagonal_{state}") for state in ("untrained", "trained")]
        body.append(
            (
                *one.labels,
                _times(one.cell.length),
                *(f"{values[-1]:.2f}" if values else "–" for values in cosines),
                *(f"{values[0]:.2f} to {values[-1]:.2f}" if values else "–" for values in diagonals),
            )
        )
    heads = (
        *("attention", "model", "optimizer", "length", "cosine before training", "after"),
        *("mean A_ii before training", "after"),
    )
    caption = "Mean cosine between an image's tokens after the last block, and mean A_ii of the first and last; seed 0."
    return Table(heads, body, caption, align="lllrrrrr")


def paper_table(printed: Sequence[Printed]) -> Table:
    """What the papers print."""
    caption = "What the papers print, of their own models and data."
    return Table(
        ("method", "setting", "printed", "beside", "paper"), [tuple(one) for one in printed], caption, align="lllll"
    )


def runs_table(found: Sequence[CellRuns]) -> Table:
    """Every run."""
    body = []
    for one in found:
        for run in one.runs:
            top1 = "diverged" if run.top1 is None else f"{run.top1:.2f}"
            loss = "–" if run.final_loss is None else f"{run.final_loss:.4f}"
            numbers = (str(run.seed), rate(run.learning_rate), top1, loss, f"{run.steps:,}", duration(run.seconds))
            body.append((*one.labels, _times(one.cell.length), *numbers))
    heads = (
        *("attention", "model", "optimizer", "length", "seed", "learning rate", "top-1, %", "final loss"),
        *("steps", "time"),
    )
    return Table(heads, body, "Final loss: mean training loss over the last tenth of the run.", align="lllrrrrrrr")


def method_of(cell: FamilyCell) -> str:
    """The name of a cell's method in the report on shortcuts.

    Example:
        >>> method_of(FamilyCell("E-SPA", "skipless + source", "soap"))
        'E-SPA'
    """
    return next(name for name, pair in METHODS.items() if pair == (cell.attention, cell.row))


_CAPTION = "Validation top-1 in percent, mean ± sample standard deviation over n seeds, and the peak learning rate."


def _cell(one: CellRuns) -> str:
    diverged = len(one.runs) - len(one.accuracies)
    more = f", {diverged} diverged" if diverged and one.accuracies else ""
    return f"{one.shown} (n {len(one.accuracies)}{more}, {rate(one.runs[0].learning_rate)})"


def _times(length: int) -> str:
    return f"{length}x"
