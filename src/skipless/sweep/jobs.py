"""What a sweep runs: trainings, and other work that leaves files."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from skipless.recipes import Recipe
from skipless.sweep.child import DIVERGED, ChildProcess

State = Literal["waiting", "running", "done", "diverged", "failed"]
TAIL_BYTES = 16384  # holds the last few lines of a metrics.jsonl, an evaluation of every block among them


@dataclass(eq=False)
class Job:
    """One run to be made, and what is known of it.

    Attributes:
        labels: what tells it apart, a word a column: `("skipless + init", "SOAP", "0")`.
        recipe: what to train; its `metric` is what is shown and compared.
        out: its run folder.
        steps: optimizer steps in all.
        state: how far it is.
        latest: the latest logged values.
        error: why it failed.
    """

    labels: tuple[str, ...]
    recipe: Recipe
    out: Path
    steps: int
    state: State = "waiting"
    latest: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    _child: ChildProcess | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a GPU."""
        return torch.cuda.is_available() and self.recipe.fit.device != "cpu"

    @property
    def score(self) -> float | None:
        """The latest value of the recipe's metric."""
        return self.latest.get(self.recipe.metric)

    def start(self, context: Any, threads: int) -> None:
        """Train in a process of its own."""
        self._child, self.state = ChildProcess(context, _train, (self.recipe, self.out), threads), "running"

    def poll(self) -> None:
        """Read what the run has written, and notice its end."""
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
        """Epoch, loss, training accuracy, score, images/s, time left, and what else is to say."""
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
            f"{name} {self.score:.1f} %" if self.score is not None else "",
            f"{values['images_per_second']:.0f}/s" if "images_per_second" in values else "",
            f"{left:.0f} s" if left else "",
            self.error or (self.state if self.state != "running" else ""),
        )

    @property
    def fraction_done(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.latest.get("step", 0) / self.steps

    def stop(self) -> None:
        """Ask a run for a checkpoint and its end."""
        if self._child is not None:
            self._child.stop()

    def join(self) -> None:
        """Wait for its end."""
        if self._child is not None:
            self._child.process.join()


@dataclass(eq=False)
class Call:
    """One evaluation, or other work that leaves files, and what is known of it.

    Attributes:
        labels: what tells it apart, a word a column.
        work: a function of a module.
        arguments: for it.
        on_gpu: whether it takes a GPU.
        state: how far it is.
        error: why it failed.
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

    def start(self, context: Any, threads: int) -> None:
        """Work in a process of its own."""
        self._child, self.state = ChildProcess(context, self.work, self.arguments, threads), "running"
        self._since = time.monotonic()

    def poll(self) -> None:
        """Notice its end."""
        if self.state != "running" or self._child is None:
            return
        self._seconds = time.monotonic() - self._since
        if not self._child.process.is_alive():
            self.error, code = self._child.message(), self._child.process.exitcode
            self.state = "done" if code == 0 else "failed"
            self.error = self.error or ("" if code == 0 else f"its process ended with exit code {code}")

    def cells(self) -> tuple[str, ...]:
        """Time taken, and what else is to say."""
        taken = f"{self._seconds:.0f} s" if self.state != "waiting" else ""
        return ("", "", "", "", "", taken, self.error or (self.state if self.state != "running" else ""))

    @property
    def fraction_done(self) -> float:
        """How much of it is done: all or nothing."""
        return float(self.state == "done")

    def stop(self) -> None:
        """End it: what it has written stays."""
        if self._child is not None:
            self._child.stop()

    def join(self) -> None:
        """Wait for its end."""
        if self._child is not None:
            self._child.process.join()


def _train(recipe: Recipe, out: Path) -> None:
    recipe.with_(fit__progress="none").run(out)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _last_values(path: Path, metric: str) -> dict[str, Any]:
    """The latest training values in a `metrics.jsonl`, and the metric of its latest evaluation."""
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
        except ValueError:  # the first line may be half of one
            continue
        if "evaluation" in parsed:
            values |= {name: value for name, value in parsed["evaluation"].items() if name == metric}
        elif "watch" not in parsed:
            values |= parsed
    return values
