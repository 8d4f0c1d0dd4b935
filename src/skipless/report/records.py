"""What a report is made of: runs read from their folders, and the cells of Table 1 that they fill.

A run folder holds `run.json` (what was asked for, and where), `metrics.jsonl` (a line for each logged step and each
evaluation) and `result.json` (what came out).
"""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from skipless.errors import InputError

Row = Literal["skip", "skipless", "skipless + init"]
OptimizerName = Literal["AdamW", "SOAP"]
ROWS: tuple[Row, ...] = get_args(Row)
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


@dataclass(frozen=True)
class Setting:
    """Where numbers come from: two accuracies compare only within one setting.

    Attributes:
        model: the architecture, in a few words.
        data: the data set.
        epochs: passes over its training part.
        classes: number of classes; ln(classes) is the loss of a uniform guess.

    Example:
        >>> str(PAPER_SETTING)
        'ViT-B, ImageNet-1k, 300 epochs'
    """

    model: str
    data: str
    epochs: int
    classes: int

    def __str__(self) -> str:
        return f"{self.model}, {self.data}, {self.epochs} epoch{'' if self.epochs == 1 else 's'}"

    @property
    def chance_loss(self) -> float:
        """Cross-entropy in nats of a uniform guess, whatever the (soft) targets."""
        return math.log(self.classes)


PAPER_SETTING = Setting(model="ViT-B", data="ImageNet-1k", epochs=300, classes=1000)

PAPER_TABLE1: Mapping[tuple[Row, OptimizerName], float] = {
    ("skip", "AdamW"): 80.3,
    ("skip", "SOAP"): 80.1,
    ("skipless", "AdamW"): 61.4,
    ("skipless", "SOAP"): 77.0,
    ("skipless + init", "AdamW"): 78.1,
    ("skipless + init", "SOAP"): 80.8,
}
"""Table 1 of the paper: validation accuracy in percent. One number a cell, no seed and no spread stated."""


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run, as its folder tells it.

    Attributes:
        folder: where it was read from.
        seed: of initialisation, order and augmentation.
        learning_rate: the peak of the schedule.
        top1: validation accuracy in percent; None for a diverged run, whatever it reached before.
        steps: optimizer steps taken.
        seconds: wall-clock time of training.
        diverged: the loss or a weight stopped being finite, and training with it.
        reason: why, in the run's own words.
        epoch: position of every logged loss, in epochs; rising.
        loss: training loss there, in nats; finite.
        record: all of `run.json`.
    """

    folder: Path
    seed: int
    learning_rate: float
    top1: float | None
    steps: int
    seconds: float
    diverged: bool
    reason: str
    epoch: Float[np.ndarray, " points"]
    loss: Float[np.ndarray, " points"]
    record: Mapping[str, Any] = field(repr=False)

    @property
    def final_loss(self) -> float | None:
        """Mean training loss over the last tenth of the run, or None where no loss was logged."""
        if not self.loss.size:
            return None
        return float(self.loss[self.epoch >= 0.9 * self.epoch[-1]].mean())


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of Table 1: a model, an optimizer, the paper's accuracy and our runs, one a seed.

    Raises:
        InputError: if the runs do not differ in the seed alone: a seed twice, or two learning rates.

    Example:
        >>> Cell("skip", "AdamW", paper=80.3).n
        0
    """

    row: Row
    optimizer: OptimizerName
    paper: float
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


def table1_cells(runs: Mapping[tuple[Row, OptimizerName], Sequence[Run]]) -> tuple[Cell, ...]:
    """Give the six cells of Table 1 in the paper's order; a cell without runs stays and says "not run".

    Example:
        >>> [(cell.row, cell.optimizer, cell.paper) for cell in table1_cells({})][-1]
        ('skipless + init', 'SOAP', 80.8)
    """
    return tuple(Cell(*key, paper=paper, runs=tuple(runs.get(key, ()))) for key, paper in PAPER_TABLE1.items())


def read_run(folder: Path) -> Run:
    """Read a finished run from its folder.

    Raises:
        InputError: if a file is missing, cannot be parsed or lacks a value; the message names the file.
    """
    record = read_record(folder / "run.json")
    result = read_record(folder / "result.json")
    epoch, loss = training_curve(folder / "metrics.jsonl")
    diverged = bool(result.get("diverged", False))
    return Run(
        folder=folder,
        seed=int(number_at(record, "seed", folder / "run.json")),
        learning_rate=number_at(record, "recipe.optimizer.lr", folder / "run.json"),
        top1=None if diverged else number_at(result, "top1", folder / "result.json"),
        steps=int(number_at(result, "steps", folder / "result.json")),
        seconds=number_at(result, "seconds", folder / "result.json"),
        diverged=diverged,
        reason=str(result.get("reason") or ""),
        epoch=epoch,
        loss=loss,
        record=record,
    )


def number_at(values: Mapping[str, Any], path: str, file: Path) -> float:
    """Look up a finite number by its dotted path."""
    value: Any = values
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{file} has no number under {path!r} (found {value!r}); run it again or remove the folder")
    return float(value)


def training_curve(file: Path) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return epochs and finite losses in the order of the steps; a step logged twice (a resumed run) counts once."""
    points: dict[int, tuple[float, float]] = {}
    for line in read_lines(file):
        if "loss" in line and line["loss"] is not None and math.isfinite(line["loss"]):
            points[int(number_at(line, "step", file))] = (number_at(line, "epoch", file), number_at(line, "loss", file))
    ordered = np.array([points[step] for step in sorted(points)], dtype=np.float64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def read_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """Every line of a file of JSON lines; an `InputError` names the line that is none."""
    for number, text in enumerate(_read_text(file).splitlines(), start=1):
        yield _parse(text, f"{file}, line {number},")


def read_record(file: Path) -> Mapping[str, Any]:
    """A file of JSON; an `InputError` names one that is missing or corrupt."""
    return _parse(_read_text(file), str(file))


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing: the run has not finished; the same command resumes it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); run it again or remove the folder") from error


def _parse(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error}); run it again or remove the folder") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} holds {type(value).__name__}, not an object; run it again or remove the folder")
    return value
