"""Jobs of a sweep: training runs, and other work that writes files."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from skipless.display import Record, Table
from skipless.display.values import counted, few_words
from skipless.recipes import Recipe
from skipless.sweep.child import DIVERGED, ChildProcess

State = Literal["waiting", "running", "done", "diverged", "failed"]
TAIL_BYTES = 16384  # enough for the last few lines of a metrics.jsonl, with an evaluation of every block


@dataclass(eq=False, repr=False)
class Job(Record):
    """One training run of a sweep and its progress.

    Attributes:
        labels: names of the run, one for each column: `("skipless + init", "SOAP", "0")`.
        recipe: recipe to train; its `metric` is shown and compared.
        out: run folder.
        steps: total number of optimizer steps.
        state: state of the run.
        latest: the latest logged values.
        error: why the run failed.
        before: whether the run had ended before it was started here.
    """

    labels: tuple[str, ...]
    recipe: Recipe
    out: Path
    steps: int
    state: State = "waiting"
    latest: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    before: bool = False
    _child: ChildProcess | None = None

    def _summary(self) -> str:
        score = "" if self.score is None else f", {self.recipe.metric} {self.score:.4g}"
        error = f": {self.error}" if self.error else ""
        return f"{', '.join(self.labels)}, {self.state}{error}{score}, {counted(self.steps, 'step')}, {self.out.name}"

    def tables(self) -> tuple[Table, ...]:
        """The latest logged values."""
        rows = [(name, few_words(value)) for name, value in self.latest.items()]
        return (Table(("latest", "value"), rows, self._summary(), align="lr"),)

    @property
    def on_gpu(self) -> bool:
        """Tell whether the run takes a GPU."""
        return torch.cuda.is_available() and self.recipe.fit.device != "cpu"

    @property
    def score(self) -> float | None:
        """Latest value of the recipe's metric."""
        return self.latest.get(self.recipe.metric)

    def start(self, context: Any, threads: int) -> None:
        """Start to train in a process of its own."""
        self.before = (self.out / "result.json").exists()
        self._child, self.state = ChildProcess(context, _train, (self.recipe, self.out), threads), "running"

    def poll(self) -> None:
        """Update state and values from the process and the files that it has written."""
        if self.state != "running" or self._child is None:
            return
        ended = not self._child.process.is_alive()
        self.latest |= _last_values(self.out / "metrics.jsonl", self.recipe.metric)
        if ended:
            self.error = self._child.message()
            code = self._child.process.exitcode
            if code == DIVERGED:
                self.state = "diverged"
            elif code == 0:
                result = _read(self.out / "result.json")
                found = {name: result[name] for name in (self.recipe.metric,) if name in result}
                self.state, self.latest = "done", {**self.latest, **found, "step": self.steps}
            else:
                self.state, self.error = "failed", self.error or f"its process ended with exit code {code}"

    def cells(self) -> tuple[str, ...]:
        """Return the texts of epoch, loss, training accuracy, score, images/s, remaining time, and state or error."""
        values = self.latest
        if self.state == "waiting" or not values:
            return ("", "", "", "", "", "", self.error or self.state)
        seconds, step = values.get("seconds", 0.0), values.get("step", 0)
        left = seconds * (self.steps - step) / step if step and self.state == "running" else 0
        name = {"top1": "top-1"}.get(self.recipe.metric, self.recipe.metric.replace("_", " "))
        return (
            f"{values['epoch']:.3g}" if "epoch" in values else "",
            f"loss {values['loss']:.3f}" if "loss" in values else "",
            f"{100 * values['accuracy']:.1f} %" if "accuracy" in values else "",
            _with_unit(name, self.score, self.recipe.metric_unit) if self.score is not None else "",
            next((f"{value:.0f}/s" for key, value in values.items() if key.endswith("_per_second")), ""),
            f"{left:.0f} s" if left else "",
            self.error or self.ending,
        )

    @property
    def ending(self) -> str:
        """How the run ended, and whether it had before."""
        if self.state == "done" and self.before:
            return "already finished"
        return "" if self.state == "running" else f"{self.state}{' before' if self.before else ''}"

    @property
    def fraction_done(self) -> float:
        """Fraction of the steps done, 0 to 1."""
        return self.latest.get("step", 0) / self.steps

    def stop(self) -> None:
        """Ask the run to write a checkpoint and end."""
        if self._child is not None:
            self._child.stop()

    def join(self) -> None:
        """Wait for the process to end."""
        if self._child is not None:
            self._child.process.join()


@dataclass(eq=False, repr=False)
class Call(Record):
    """One evaluation, or other work that writes files, and its progress.

    Attributes:
        labels: names of the call, one for each column.
        work: a function at the top level of a module, so that it can be pickled.
        arguments: arguments of the function.
        on_gpu: whether the call takes a GPU.
        state: state of the call.
        error: why the call failed.
    """

    labels: tuple[str, ...]
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    on_gpu: bool = False
    state: State = "waiting"
    error: str = ""
    _child: ChildProcess | None = None
    _since: float = 0.0
    _seconds: float = 0.0

    def _summary(self) -> str:
        error = f": {self.error}" if self.error else ""
        return f"{', '.join(self.labels)}, {self.state}{error}, {self._seconds:.0f} s"

    def tables(self) -> tuple[Table, ...]:
        """The state of the call."""
        rows = [(", ".join(self.labels), self.state, f"{self._seconds:.0f}")]
        notes = [f"! {self.error}"] if self.error else []
        return (Table(("call", "state", "seconds"), rows, "one evaluation of a sweep", notes, align="llr"),)

    def start(self, context: Any, threads: int) -> None:
        """Start the call in a process of its own."""
        self._child, self.state = ChildProcess(context, self.work, self.arguments, threads), "running"
        self._since = time.monotonic()

    def poll(self) -> None:
        """Update the state from the process."""
        if self.state != "running" or self._child is None:
            return
        self._seconds = time.monotonic() - self._since
        if not self._child.process.is_alive():
            self.error, code = self._child.message(), self._child.process.exitcode
            self.state = "done" if code == 0 else "failed"
            self.error = self.error or ("" if code == 0 else f"its process ended with exit code {code}")

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the time taken, and state or error, in the columns of `Job.cells`."""
        taken = f"{self._seconds:.0f} s" if self.state != "waiting" else ""
        return ("", "", "", "", "", taken, self.error or (self.state if self.state != "running" else ""))

    @property
    def fraction_done(self) -> float:
        """Fraction done: 0 or 1."""
        return float(self.state == "done")

    def stop(self) -> None:
        """End the process; the files that it has written remain."""
        if self._child is not None:
            self._child.stop()

    def join(self) -> None:
        """Wait for the process to end."""
        if self._child is not None:
            self._child.process.join()


def _with_unit(name: str, score: float, unit: str) -> str:
    """A score as a cell: percentages with one digit behind the point, anything else with four digits."""
    return f"{name} {score:.1f}{unit}" if unit == " %" else f"{name} {score:.4g}{unit}"


def _train(recipe: Recipe, out: Path) -> None:
    recipe.with_(fit__progress="none").run(out)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _last_values(path: Path, metric: str) -> dict[str, Any]:
    """Return the latest training values of a `metrics.jsonl`, and the metric of its latest evaluation."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    values: dict[str, Any] = {}
    for line in lines:
        try:
            parsed = json.loads(line)
        except ValueError:  # the first line may be incomplete
            continue
        if "evaluation" in parsed:
            values |= {name: value for name, value in parsed["evaluation"].items() if name == metric}
        elif "watch" not in parsed:
            values |= parsed
    return values
