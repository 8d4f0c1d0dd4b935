"""What a run looks at on its way beside its score: measurements.jsonl, a line every so many steps."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from skipless.errors import InputError
from skipless.training.run_folder.folder import RunFolder

MEASUREMENTS = "measurements.jsonl"

Measure = Callable[[nn.Module], Mapping[str, Any]]


class PeriodicMeasurement:
    """A measurement every so many steps, at the start and at the end.

    Its lines follow those of `metrics.jsonl`: a run that is killed and resumed has each of them once.

    Args:
        measure: what to call with the model.
        every: steps between two calls; 0 never calls it.
        folder: where the lines go; only the process that writes there measures.

    Raises:
        InputError: if there is nothing to call.
    """

    def __init__(self, measure: Measure | None, every: int, folder: RunFolder) -> None:
        if every and measure is None:
            raise InputError(f"measure_every {every}, but this task has nothing to measure; leave it at 0")
        self.measure = measure
        self.every = every
        self.folder = folder

    def open(self, step: int) -> None:
        """Go on after the lines of this step; a run that starts anew starts the file anew."""
        if self.every:
            self.folder.open_log(step or -1, MEASUREMENTS)

    def due(self, step: int, *, last: bool) -> bool:
        """Whether this is one of the steps."""
        return bool(self.every) and (last or step % self.every == 0)

    def take(self, model: nn.Module, step: int, epoch: float) -> str:
        """Measure, write the line, and say so; torch's random state stays as it was."""
        if self.measure is None or not self.folder.writes:
            return ""
        start = time.perf_counter()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            measurement = dict(self.measure(model))
        self.folder.log({"step": step, "epoch": epoch, "measurement": measurement}, MEASUREMENTS)
        return f"measured at step {step} in {time.perf_counter() - start:.1f} s"
