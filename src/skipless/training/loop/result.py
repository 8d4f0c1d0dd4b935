"""The result of a run: finished or diverged, and how a finished run is recognised."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from skipless.display import Record, Table
from skipless.display.axes import as_label, ruled
from skipless.display.drawing import COLOURS
from skipless.display.values import counted, place_name
from skipless.errors import InputError
from skipless.training.run_folder.checkpoint import CHECKPOINT, latest_checkpoint, load_tensors_
from skipless.training.run_folder.fingerprint import check_run_record
from skipless.training.run_folder.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERGED_REMEDY = "lower the learning rate, warm up longer or clip the gradients, and give another --out"


class TrainingDiverged(InputError):
    """The run diverged; `result.json` says why, and the last good checkpoint is kept."""


@dataclass(frozen=True, repr=False)
class FitResult(Record):
    """The result of a finished run, as in `result.json`.

    Attributes:
        steps: number of optimizer steps.
        epochs: number of passes over the training set.
        seconds: training time over all resumed parts, without evaluations and checkpoints.
        metrics: metrics of the last evaluation.
        began: step at which this call went on: 0 in a new run, `steps` where the run had finished before. It is not
            compared: a resumed run equals one that was not cut off.
        folder: of the run, whose logged losses `plot` draws; it is not compared.
    """

    steps: int
    epochs: float
    seconds: float
    metrics: dict[str, float]
    began: int = field(default=0, compare=False)
    folder: Path | None = field(default=None, compare=False)

    @property
    def work(self) -> str:
        """What was done in this call, and what before, in words.

        Example:
            >>> FitResult(43, 1.0, 7.6, {}, began=43).work
            'already finished: 43 steps in 8 s'
            >>> FitResult(43, 1.0, 7.6, {}, began=20).work
            '43 steps in 8 s, the first 20 before'
        """
        if self.began == self.steps:
            return f"already finished: {counted(self.steps, 'step')} in {self.seconds:.0f} s"
        before = f", the first {self.began} before" if self.began else ""
        return f"{counted(self.steps, 'step')} in {self.seconds:.0f} s{before}"

    def _summary(self) -> str:
        found = "".join(f"{name} {value:.4g}, " for name, value in self.metrics.items())
        return f"{found}{self._length()}"

    def _length(self) -> str:
        return f"{counted(self.steps, 'step')}, {counted(self.epochs, 'epoch')}, {self.seconds:.1f} s"

    def tables(self) -> tuple[Table, ...]:
        """A row for each metric."""
        rows = [(name, f"{value:.6g}") for name, value in self.metrics.items()]
        caption = f"{self._length()} of training"
        return (Table(("last evaluation", "value"), rows, caption, align="lr"),)

    def _has_picture(self) -> bool:
        return self.folder is not None

    def _draw(self, axes: "Axes") -> None:
        if self.folder is None:
            raise InputError("this FitResult is of no run folder, so it has no curve to draw; print it")
        points = sorted(_losses(self.folder / "metrics.jsonl").values())
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS["init"], linewidth=1.2)
        axes.set_xlabel("epoch", loc="right", labelpad=2)
        axes.set_ylabel("training loss, nats")
        axes.set_title(as_label(place_name(self.folder)), loc="left", fontsize=10)
        ruled(axes)


def _losses(file: Path) -> dict[int, tuple[float, float]]:
    """Epoch and loss of every step that was logged and can be read; of a step logged twice, the last counts."""
    points: dict[int, tuple[float, float]] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        with suppress(ValueError, TypeError, KeyError):
            values = json.loads(line)
            epoch, loss = float(values["epoch"]), float(values["loss"])
            if math.isfinite(loss):
                points[int(values["step"])] = (epoch, loss)
    return points


def finished_result(folder: RunFolder, expected: Mapping[str, Any], task: nn.Module) -> FitResult | None:
    """Return the result of a run that has finished, and load its weights into the task; None if it has not.

    Raises:
        TrainingDiverged: if the run diverged.
        InputError: if the run has another recipe, or its last checkpoint is missing or too old.
    """
    result, record = folder.read("result.json"), folder.read("run.json")
    if result is None or record is None:
        return None
    check_run_record(record, expected, str(folder.path))
    if lacking := [key for key in ("diverged", "steps", "epochs", "seconds") if key not in result]:
        raise InputError(
            f"result.json in {str(folder.path)!r} is damaged: it lacks {', '.join(lacking)}; move it away, and the "
            "same command takes the last steps again"
        )
    if result["diverged"]:
        reason = result.get("reason", "no reason is kept")
        raise TrainingDiverged(f"{folder.path} diverged when it was run: {reason}; {DIVERGED_REMEDY}")
    state, note = latest_checkpoint(folder.path)
    if state is None:  # the caller expects the weights
        raise InputError(f"{folder.path} has a result but no checkpoint; remove the folder to train again")
    if state["step"] != result["steps"]:
        raise InputError(
            f"{folder.path} is finished, but its last checkpoint is of step {state['step']} of {result['steps']}"
            f"{': ' + note if note else ''}; remove its result.json, and the same command takes the last steps again"
        )
    load_tensors_(task, state["task"], str(folder.path / CHECKPOINT))
    return FitResult(
        result["steps"], result["epochs"], result["seconds"], state["metrics"], result["steps"], folder.path
    )
