"""TaskScores: accuracies of zero-shot tasks beside what a guess and the most frequent answer reach."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skipless.display import Record, Table
from skipless.display.axes import legend, name_ticks, ruled
from skipless.display.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class TaskScore(Record):
    """Accuracy at one task, in per cent.

    Attributes:
        task: the harness' name of it.
        title: its name in tables.
        accuracy: share of the questions whose right answer has the highest log-likelihood.
        error: its standard error over the questions; None where there is but one.
        normalized: the same by log-likelihood per character of the answer; None for tasks that have no such score.
        normalized_error: its standard error.
        n: number of questions.
        chance: what guesses reach.
        majority: what the most frequent answer reaches, in these questions.
        cut: share of the answers whose question did not fit into the context, so that its beginning was left out.
        version: of the task in the harness.
    """

    task: str
    title: str
    accuracy: float
    error: float | None
    normalized: float | None
    normalized_error: float | None
    n: int
    chance: float
    majority: float
    cut: float
    version: str

    def _summary(self) -> str:
        reached = with_error(self.accuracy, self.error)
        return f"{self.title} {reached} %, n = {self.n}, largest answer {self.majority:.1f} %"

    def _row(self) -> tuple[str, ...]:
        normalized = "" if self.normalized is None else with_error(self.normalized, self.normalized_error)
        levels = (f"{self.n}", f"{self.chance:.1f}", f"{self.majority:.1f}")
        return (self.title, with_error(self.accuracy, self.error), normalized, *levels)

    def tables(self) -> tuple[Table, ...]:
        """A row of numbers."""
        return (Table(_HEAD, [self._row()], _CAPTION, align="lrrrrr"),)


_HEAD = ("task", "accuracy", "by length", "n", "chance", "largest answer")
_CAPTION = "zero-shot accuracy in per cent, ± standard error over questions; by length: log-likelihoods per character"


@dataclass(frozen=True, repr=False)
class TaskScores(Record):
    """Zero-shot accuracies by the evaluation harness.

    Attributes:
        scores: one a task.
        context: tokens that the model sees at most.
        begins: whether a beginning-of-text token stands before each question.
        harness: version of lm-eval.
        limit: questions a task at most; None takes all.
        beside: other models' accuracies in per cent, by name and task, such as the paper's.
    """

    scores: tuple[TaskScore, ...]
    context: int
    begins: bool
    harness: str
    limit: int | None = None
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __getitem__(self, task: str) -> TaskScore:
        """The score at a task."""
        return next(score for score in self.scores if score.task == task)

    @property
    def mean(self) -> float:
        """Mean accuracy over the tasks, as Table 7 has it."""
        return sum(score.accuracy for score in self.scores) / len(self.scores)

    def _summary(self) -> str:
        shown = ", ".join(f"{score.title} {score.accuracy:.1f} %" for score in self.scores)
        return f"{shown}; n = {sum(score.n for score in self.scores)} questions"

    def tables(self) -> tuple[Table, ...]:
        """A row for each task, and the mean of several."""
        rows = [
            (*score._row(), *(f"{of[score.task]:.1f}" if score.task in of else "" for of in self.beside.values()))
            for score in self.scores
        ]
        if len(self.scores) > 1:
            means = [_mean([of.get(score.task) for score in self.scores]) for of in self.beside.values()]
            rows.append(("mean", f"{self.mean:.1f}", "", "", "", _mean([s.majority for s in self.scores]), *means))
        head = (*_HEAD, *self.beside)
        return (Table(head, rows, _CAPTION, self.notes(), align=f"l{'r' * (len(head) - 1)}"),)

    def notes(self) -> list[str]:
        """What the numbers depend on, and what to know of them."""
        part = "" if self.limit is None else f", the first {self.limit} questions of each task"
        begins = "a beginning of text before each question" if self.begins else "nothing before a question"
        said = [f"lm-eval {self.harness}, context {self.context}, {begins}{part}"]
        versions = ", ".join(f"{score.task} {score.version}" for score in self.scores)
        said.append(f"versions of the tasks: {versions}")
        said += [
            f"! {score.title}: {100 * score.cut:.0f} % of the answers had questions too long for the context, of which "
            "the beginning was left out"
            for score in self.scores
            if score.cut
        ]
        return said

    def _draw(self, axes: "Axes") -> None:
        places = range(len(self.scores))
        axes.errorbar(
            places, [s.accuracy for s in self.scores], [s.error or 0.0 for s in self.scores],
            fmt="o", color=COLOURS["init"], capsize=3, label="accuracy",
        )  # fmt: skip
        for name, marker, values in (
            ("chance", "_", [s.chance for s in self.scores]),
            ("largest answer", "x", [s.majority for s in self.scores]),
        ):
            axes.plot(places, values, linestyle="none", marker=marker, color=COLOURS["muted"], label=name)
        name_ticks(axes, [score.title for score in self.scores])
        axes.set_ylabel("accuracy, %")
        axes.margins(x=0.15)
        ruled(axes)
        legend(axes)


def with_error(value: float, error: float | None) -> str:
    """A number in per cent with its standard error, where that is known."""
    return f"{value:.1f}" if error is None else f"{value:.1f} ± {error:.1f}"


def _mean(values: "list[float | None] | list[float]") -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}" if values and len(known) == len(values) else ""
