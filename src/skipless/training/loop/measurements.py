"""Periodic measurements of the model during training, one line each in `measurements.jsonl`."""

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
    """Measures a model every `every` steps, before the first step and after the last.

    A run that is killed and resumed has every line once, as in `metrics.jsonl`.

    Args:
        measure: maps a model to a JSON measurement.
        every: steps between two measurements; 0 measures nothing.
        folder: where the lines go. Only the process that writes there measures.

    Raises:
        InputError: if `every` is set but `measure` is None.
    """

    def __init__(self, measure: Measure | None, every: int, folder: RunFolder) -> None:
        if every and measure is None:
            raise InputError(f"measure_every {every}, but this task has nothing to measure; leave it at 0")
        self.measure = measure
        self.every = every
        self.folder = folder

    def open(self, step: int) -> None:
        """Open the file behind the lines up to this step; a run that starts anew empties it."""
        if self.every:
            self.folder.open_log(step or -1, MEASUREMENTS)

    def due(self, step: int, *, last: bool) -> bool:
        """Tell whether to measure at this step."""
        return bool(self.every) and (last or step % self.every == 0)

    def take(self, model: nn.Module, step: int, epoch: float) -> str:
        """Measure, write the line, and return a note for the user. torch's random state is preserved."""
        if self.measure is None or not self.folder.writes:
            return ""
        start = time.perf_counter()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            measurement = dict(self.measure(model))
        self.folder.log({"step": step, "epoch": epoch, "measurement": measurement}, MEASUREMENTS)
        return f"measured at step {step} in {time.perf_counter() - start:.1f} s"
