"""The cells of Table 1: runs that differ in their seed alone, beside the paper's number."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from skipless.choices import ALL_ROWS, Row
from skipless.errors import InputError
from skipless.experiments.supervised.paper import PAPER_TABLE1
from skipless.report.labels import OPTIMIZER_LABELS, OptimizerLabel
from skipless.report.run_records import Run


@dataclass(frozen=True, eq=False)
class CellRuns:
    """One cell of Table 1: a model, an optimizer, the paper's accuracy and our runs, one a seed.

    Raises:
        InputError: if the runs do not differ in the seed alone: a seed twice, or two learning rates.

    Example:
        >>> CellRuns("skip", "AdamW", paper=80.3).n
        0
    """

    row: Row
    optimizer: OptimizerLabel
    paper: float | None
    runs: tuple[Run, ...] = ()

    def __post_init__(self) -> None:
        rates = sorted({run.learning_rate for run in self.runs})
        if len(rates) > 1:
            given = ", ".join(f"{run.folder} has {run.learning_rate:g}" for run in self.runs)
            raise InputError(
                f"the runs of {self.row}, {self.optimizer} have {len(rates)} learning rates ({given}); give one a cell"
            )
        seeds = [run.seed for run in self.runs]
        if len(set(seeds)) < len(seeds):
            raise InputError(f"the runs of {self.row}, {self.optimizer} repeat a seed ({seeds}); give one run a seed")

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 of every run that was finished, in percent."""
        return tuple(run.top1 for run in self.runs if run.top1 is not None)

    @property
    def n(self) -> int:
        """Number of finished runs: the accuracies behind `mean`."""
        return len(self.accuracies)

    @property
    def mean(self) -> float | None:
        """Mean top-1 over the seeds, in percent."""
        return statistics.fmean(self.accuracies) if self.n else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1) over the seeds, in points; None below two."""
        return statistics.stdev(self.accuracies) if self.n > 1 else None

    @property
    def learning_rate(self) -> float | None:
        """The peak learning rate that all runs share."""
        return self.runs[0].learning_rate if self.runs else None

    @property
    def diverged(self) -> int:
        """How many runs diverged."""
        return sum(run.diverged for run in self.runs)


def table1_cells(runs: Mapping[tuple[Row, OptimizerLabel], Sequence[Run]]) -> tuple[CellRuns, ...]:
    """Give the six cells of Table 1 in the paper's order, then ours; a cell without runs stays and says "not run".

    Muon, which the paper has not, has cells where any of it was run.

    Example:
        >>> [(cell.row, cell.optimizer, cell.paper) for cell in table1_cells({})][-3:-1]
        [('skipless + init', 'SOAP', 80.8), ('skipless + ours', 'AdamW', None)]
    """
    return tuple(
        CellRuns(row, optimizer, paper=PAPER_TABLE1.get((row, optimizer)), runs=tuple(runs.get((row, optimizer), ())))
        for row in ALL_ROWS
        for optimizer in _optimizers(optimizer for _, optimizer in runs)
    )


def optimizers_of(cells: Sequence[CellRuns]) -> tuple[OptimizerLabel, ...]:
    """The optimizers that have a column: the paper's two, and those of further cells.

    Example:
        >>> optimizers_of([CellRuns("skip", "Muon", paper=None)])
        ('AdamW', 'SOAP', 'Muon')
    """
    return _optimizers(cell.optimizer for cell in cells)


def _optimizers(given: Iterable[OptimizerLabel]) -> tuple[OptimizerLabel, ...]:
    shown = {*given, *(optimizer for _, optimizer in PAPER_TABLE1)}
    return tuple(optimizer for optimizer in OPTIMIZER_LABELS if optimizer in shown)
