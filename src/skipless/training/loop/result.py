"""The result of a run: finished or diverged, and how a finished run is recognised."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.training.run_folder.checkpoint import CHECKPOINT, latest_checkpoint, load_tensors_
from skipless.training.run_folder.fingerprint import check_run_record
from skipless.training.run_folder.folder import RunFolder

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
    """

    steps: int
    epochs: float
    seconds: float
    metrics: dict[str, float]
    began: int = field(default=0, compare=False)

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
            return f"already finished: {self.steps} steps in {self.seconds:.0f} s"
        before = f", the first {self.began} before" if self.began else ""
        return f"{self.steps} steps in {self.seconds:.0f} s{before}"

    def _summary(self) -> str:
        found = "".join(f"{name} {value:.4g}, " for name, value in self.metrics.items())
        return f"{found}{self.steps:,} steps, {self.epochs:.4g} epochs, {self.seconds:.1f} s"

    def tables(self) -> tuple[Table, ...]:
        """A row for each metric."""
        rows = [(name, f"{value:.6g}") for name, value in self.metrics.items()]
        caption = f"{self.steps:,} steps, {self.epochs:.4g} epochs, {self.seconds:.1f} s of training"
        return (Table(("last evaluation", "value"), rows, caption, align="lr"),)


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
    return FitResult(result["steps"], result["epochs"], result["seconds"], state["metrics"], began=result["steps"])
