"""Run records, read from run folders.

A run folder holds `run.json` (configuration and environment), `metrics.jsonl` (a line for each logged step and each
evaluation) and `result.json` (the result).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from skipless.display import Record, Table
from skipless.display.axes import as_label, legend, ruled
from skipless.display.drawing import COLOURS
from skipless.display.values import counted, place_name
from skipless.errors import InputError
from skipless.report.labels import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Setting:
    """The setting of an experiment. Accuracies are comparable only within one setting.

    Attributes:
        model: the architecture, in a few words.
        data: name of the data set.
        epochs: number of passes over its training part.
        classes: number of classes; ln(classes) is the loss of a uniform guess.

    Example:
        >>> str(Setting("ViT-B", "ImageNet-1k", 300, classes=1000))
        'ViT-B, ImageNet-1k, 300 epochs'
    """

    model: str
    data: str
    epochs: int
    classes: int

    def __str__(self) -> str:
        return f"{self.model}, {self.data}, {counted(self.epochs, 'epoch')}"

    @property
    def chance_loss(self) -> float:
        """Cross-entropy of a uniform guess in nats, which is the same for all (soft) targets."""
        return math.log(self.classes)


@dataclass(frozen=True, eq=False, repr=False)
class Run(Record):
    """One finished run, read from its folder.

    Attributes:
        folder: folder of the run.
        seed: seed of initialisation, order and augmentation.
        learning_rate: peak learning rate of the schedule.
        top1: validation accuracy in percent; None for a diverged run.
        steps: number of optimizer steps taken.
        seconds: wall-clock time of training.
        diverged: whether training stopped because the loss or a weight was not finite.
        reason: the run's message about the divergence.
        epoch: positions of the logged losses in epochs, increasing.
        loss: training losses at these positions, in nats and finite.
        record: the content of `run.json`.
        bits_per_byte: of a language model on held-out text; None for any other model, and for a diverged run.
        held_out_loss: of a language model on held-out text, in nats a token.
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
    bits_per_byte: float | None = None
    held_out_loss: float | None = None

    def _summary(self) -> str:
        found = f"diverged: {self.reason}" if self.diverged else " ".join(self._score)
        loss = "" if self.final_loss is None else f", final loss {self.final_loss:.3f}"
        how = f"{counted(self.steps, 'step')}, lr {self.learning_rate:g}, seed {self.seed}"
        return f"{place_name(self.folder)}, {found}{loss}, {how}"

    def tables(self) -> tuple[Table, ...]:
        """What came out, and how it was trained."""
        rows = [
            (self._score[0], "diverged") if self.diverged else self._score,
            ("final training loss", "" if self.final_loss is None else f"{self.final_loss:.4f} nats"),
            ("steps", f"{self.steps:,}"),
            ("epochs", f"{self.epoch[-1]:g}" if self.epoch.size else ""),
            ("learning rate", f"{self.learning_rate:g}"),
            ("training time", duration(self.seconds)),
            ("seed", str(self.seed)),
        ]
        notes = [f"! diverged: {self.reason}"] if self.diverged else []
        return (Table(("run", "value"), rows, str(self.folder), notes, align="lr"),)

    def _draw(self, axes: "Axes") -> None:
        from skipless.report.pictures.curves import smooth, thin  # which imports this module

        if self.epoch.size:
            axes.plot(self.epoch, self.loss, color=COLOURS["muted"], linewidth=0.6, alpha=0.6, label="as logged")
            epoch, loss = thin(self.epoch, self.loss, limit=1000)
            width = max(0.01 * float(epoch[-1] - epoch[0]), 1e-9)
            axes.plot(epoch, smooth(epoch, loss, epoch, width), color=COLOURS["init"], linewidth=1.4, label="smoothed")
        axes.set_xlabel("epoch", loc="right", labelpad=2)
        axes.set_ylabel("training loss, nats")
        axes.set_title(as_label(place_name(self.folder)), loc="left", fontsize=10)
        ruled(axes)
        legend(axes)

    @property
    def _score(self) -> tuple[str, str]:
        if self.bits_per_byte is not None:
            return "bits per byte", f"{self.bits_per_byte:.4g}"
        return "top-1", "" if self.top1 is None else f"{self.top1:.2f} %"

    @property
    def final_loss(self) -> float | None:
        """Mean training loss over the last tenth of the run; None if no loss was logged."""
        if not self.loss.size:
            return None
        return float(self.loss[self.epoch >= 0.9 * self.epoch[-1]].mean())


def read_run(folder: Path | str) -> Run:
    """Read a finished run from its folder.

    Raises:
        InputError: if a file is missing, cannot be parsed or lacks a value; the message names the file.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise InputError(f"{str(folder)!r} is no run folder of `skipless train`: it has no run.json")
    record = read_record(folder / "run.json")
    result = read_record(folder / "result.json")
    epoch, loss = training_curve(folder / "metrics.jsonl")
    diverged = bool(result.get("diverged", False))
    of_text = {"bits_per_byte": "bits_per_byte", "held_out_loss": "loss"}
    scores = {} if diverged else of_text if "bits_per_byte" in result else {"top1": "top1"}
    found = {field: number_at(result, name, folder / "result.json") for field, name in scores.items()}
    return Run(
        folder=folder,
        seed=int(number_at(record, "seed", folder / "run.json")),
        learning_rate=number_at(record, "recipe.optimizer.lr", folder / "run.json"),
        **{"top1": None, **found},
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
    """Epochs and finite losses in the order of the steps. If a resumed run logs a step twice, the last counts."""
    points: dict[int, tuple[float, float]] = {}
    for line in read_lines(file):
        if "loss" in line and line["loss"] is not None and math.isfinite(line["loss"]):
            points[int(number_at(line, "step", file))] = (number_at(line, "epoch", file), number_at(line, "loss", file))
    ordered = np.array([points[step] for step in sorted(points)], dtype=np.float64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def read_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a JSON Lines file; an `InputError` names a line that is not valid."""
    for number, text in enumerate(_read_text(file).splitlines(), start=1):
        yield _parse(text, f"{file}, line {number},")


def read_record(file: Path) -> Mapping[str, Any]:
    """The content of a JSON file; an `InputError` names a file that is missing or corrupt."""
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
