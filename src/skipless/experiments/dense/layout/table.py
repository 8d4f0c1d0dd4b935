"""Tables of dense evaluation: lines of numbers by data set, ours beside the paper's, as Markdown and CSV."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skipless.report.labels import NOT_RUN


@dataclass(frozen=True)
class Value:
    """A number of the paper's and what we found, one number a seed.

    Attributes:
        paper: per cent; None where the paper has none.
        ours: per cent, a number for each seed that got there.
        failed: runs that diverged or collapsed before.
        where: which blocks or features each number is of.
        missing: what to say where there is no number and no run failed.

    Example:
        >>> str(Value(62.3, (60.0, 62.0))), str(Value(None, (), failed=1)), str(Value(None))
        ('61.0 ± 1.4', 'collapsed', 'not run')
    """

    paper: float | None
    ours: tuple[float, ...] = ()
    failed: int = 0
    where: tuple[str, ...] = ()
    missing: str = NOT_RUN

    @property
    def n(self) -> int:
        """Number of seeds behind the mean."""
        return len(self.ours)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.ours) if self.ours else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None below two."""
        return statistics.stdev(self.ours) if self.n > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return "collapsed" if self.failed else self.missing
        return f"{self.mean:.1f}" if self.spread is None else f"{self.mean:.1f} ± {self.spread:.1f}"


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        group: lines of one group stand together: `single feature, best block`.
        row: the model: `skip`, `skipless` or `skipless + init`, or what must be beaten.
        detail: what else tells it apart, by column head: optimizer, epoch, blocks.
        values: by data set.
    """

    group: str
    row: str
    detail: Mapping[str, str]
    values: Mapping[str, Value]

    @property
    def n(self) -> str:
        """How many seeds, and how many runs failed."""
        counts = sorted({value.n for value in self.values.values()})
        failed = max((value.failed for value in self.values.values()), default=0)
        return "–".join(map(str, counts)) + (f" (+ {failed} collapsed)" if failed else "")


@dataclass(frozen=True)
class DenseTable:
    """A table, ours beside the paper's.

    Attributes:
        name: `table2`.
        title: `Table 2: ...`.
        metric: what the numbers are.
        columns: names of the data sets, as the paper has them.
        lines: from top to bottom.
        paper: the paper's setting in a few words.
        ours: ours.
        legend: sentences on how to read it.
        bars: the highest number that its bars on a page show.
    """

    name: str
    title: str
    metric: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    paper: str
    ours: str
    legend: tuple[str, ...] = field(default=())
    bars: float = 100.0

    @property
    def details(self) -> tuple[str, ...]:
        """Heads of the columns that tell lines apart."""
        return tuple(dict.fromkeys(head for line in self.lines for head in line.detail))

    @property
    def caption(self) -> str:
        """What the numbers are, and no more than these lines need."""
        values = [value for line in self.lines for value in line.values.values()]
        parts = [f"{self.metric}."]
        if any(value.n > 1 for value in values):
            parts.append("Ours: mean ± sample standard deviation over n seeds.")
        if any(value.n == 1 for value in values):
            parts.append("Where n is 1 no spread can be given.")
        if any(value.failed for value in values):
            parts.append("A run that collapsed or diverged before has no number: n leaves it out.")
        return " ".join([*parts, *self.legend, "The paper states one number a cell, without a spread."])


def dense_markdown(table: DenseTable) -> str:
    """The table for a README: two columns a data set, the paper's and ours.

    Example:
        >>> line = Line("multiscale", "skip", {"optimizer": "AdamW"}, {"VOC2012": Value(61.6, (30.0,))})
        >>> found = DenseTable("table2", "Table 2", "mIoU", ("VOC2012",), (line,), "ViT-S", "small")
        >>> print(dense_markdown(found).splitlines()[2])
        | multiscale | skip | AdamW | 61.6 | 30.0 | 1 |
    """
    heads = [f"{name}: {which}" for name in table.columns for which in ("paper", "ours")]
    grouped = any(line.group for line in table.lines)
    head = [*(["features"] if grouped else []), "model", *table.details, *heads, "n"]
    words = len(head) - len(heads) - 1
    lines = [f"| {' | '.join(head)} |", f"|{':--|' * words}{'--:|' * (len(head) - words)}"]
    for line in table.lines:
        cells = [*([line.group] if grouped else []), line.row, *(line.detail.get(name, "") for name in table.details)]
        for name in table.columns:
            value = line.values.get(name, Value(None))
            cells += ["–" if value.paper is None else f"{value.paper:.1f}", str(value)]
        lines.append(f"| {' | '.join([*cells, line.n])} |")
    settings = f"Paper: {table.paper}. Ours: {table.ours}."
    return "\n".join([*lines, "", f"{table.caption} {settings}", ""])


def dense_csv(table: DenseTable) -> str:
    """The table for programs: a row for each number, unrounded, empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = ("mean", "sd", "n", "failed", "per_seed", "where")
    writer.writerow(("features", "model", *table.details, "data", "metric", "paper", *heads, "setting"))
    for line in table.lines:
        for name, value in line.values.items():
            found = (value.mean, value.spread, value.n, value.failed, _joined(value.ours), _joined(value.where))
            about = (line.group, line.row, *(line.detail.get(head, "") for head in table.details))
            writer.writerow((*about, name, table.metric, value.paper, *found, table.ours))
    return buffer.getvalue()


def _joined(values: Sequence[object]) -> str:
    return "; ".join(map(str, values))
