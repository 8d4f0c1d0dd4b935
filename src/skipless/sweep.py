"""Run many recipes, or evaluations, side by side, each in a process of its own, and show how they get on.

The folders that they write are the only channel: a child works and writes, the parent reads. Children end with their
parent, however it ends, and the same call goes on from their last checkpoints.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skipless.errors import InputError
from skipless.recipes import DinoRecipe, Recipe, run
from skipless.training import TrainingDiverged, TrainingStopped

State = Literal["waiting", "running", "done", "diverged", "failed"]
POLL_SECONDS = 0.25
LINE_SECONDS = 20.0
DIVERGED = 3  # exit code of a child whose run diverged
TAIL_BYTES = 16384  # holds the last few lines of a metrics.jsonl, an evaluation of every block among them


class _Child:
    """A process, and the one line that it may send before it ends."""

    def __init__(self, context: Any, work: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(work, arguments, threads, theirs))
        self.process.start()
        theirs.close()

    def message(self) -> str:
        try:
            return self.pipe.recv() if self.pipe.poll() else ""
        except EOFError:  # it sent none
            return ""


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
    recipe: Recipe | DinoRecipe
    out: Path
    steps: int
    state: State = "waiting"
    latest: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    _child: _Child | None = None

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
        self._child, self.state = _Child(context, _train, (self.recipe, self.out), threads), "running"

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
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.latest.get("step", 0) / self.steps

    def stop(self) -> None:
        """Ask a run for a checkpoint and its end."""
        _terminate(self._child)

    def join(self) -> None:
        """Wait for its end."""
        _join(self._child)


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
    _child: _Child | None = None
    _since: float = 0.0
    _seconds: float = 0.0

    def start(self, context: Any, threads: int) -> None:
        """Work in a process of its own."""
        self._child, self.state = _Child(context, self.work, self.arguments, threads), "running"
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
    def share(self) -> float:
        """How much of it is done: all or nothing."""
        return float(self.state == "done")

    def stop(self) -> None:
        """End it: what it has written stays."""
        _terminate(self._child)

    def join(self) -> None:
        """Wait for its end."""
        _join(self._child)


def run_jobs(
    jobs: Sequence[Job | Call], *, parallel: int | None = None, threads: int = 1, console: Console | None = None
) -> None:
    """Run all jobs, so many at a time; what is finished already is recognised at once.

    Args:
        jobs: in the order to start them.
        parallel: processes at a time; by default as many as the cores have threads for, and one in all if some job
            takes a GPU.
        threads: of each process, on the CPU. Their number decides rounding, so it does not depend on anything else.
        console: where to show progress.

    Raises:
        InputError: once all others have ended, if a job could not be run. A diverged run is a result, not an error.
        KeyboardInterrupt: after all running jobs have written their checkpoints.
    """
    console = console or Console(stderr=True)
    if threads < 1:
        raise InputError(f"--threads {threads}: give at least 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if parallel is None:
        parallel = 1 if any(job.on_gpu for job in jobs) else max(1, cores // threads)
    if parallel < 1:
        raise InputError(f"--jobs {parallel}: give at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a sweep starts its own processes; run it without torchrun")
    context = _context()
    waiting = list(jobs)
    with _Display(jobs, console) as display:
        try:
            while waiting or any(job.state == "running" for job in jobs):
                for job in jobs:
                    job.poll()
                free = parallel - sum(job.state == "running" for job in jobs)
                for job in waiting[:free]:
                    job.start(context, threads)
                del waiting[:free]
                display.show()
                time.sleep(POLL_SECONDS)
        finally:
            for job in jobs:
                job.stop()
            for job in jobs:
                job.join()
        display.show()
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise InputError(f"{', '.join(failed[0].labels)}: {failed[0].error}{more}")


def _terminate(child: _Child | None) -> None:
    if child is not None and child.process.is_alive():
        child.process.terminate()


def _join(child: _Child | None) -> None:
    if child is not None:
        child.process.join()


def _context() -> Any:
    """Processes forked from a server that has loaded torch once. Ctrl-C is the parent's: none of them hears it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skipless.recipes"])
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)
    return context


def _child(work: Callable[..., None], arguments: tuple[Any, ...], threads: int, pipe: Connection) -> None:
    """The child: work quietly, send an error's one line, and never outlive the parent."""
    os.setsid()  # the loop will listen for Ctrl-C, too; but the parent asks its children to end, once
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(threads)
    try:
        work(*arguments)
    except TrainingDiverged:
        raise SystemExit(DIVERGED) from None
    except InputError as error:
        pipe.send(str(error))
        raise SystemExit(2) from None
    except TrainingStopped:
        raise SystemExit(1) from None


def _train(recipe: Recipe | DinoRecipe, out: Path) -> None:
    quiet = recipe.with_(fit__progress="none")
    if isinstance(quiet, DinoRecipe):
        quiet.run(out)
    else:
        run(quiet, out)


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


class _Display:
    """A live table on a terminal; elsewhere a line when a run ends, and one now and then."""

    def __init__(self, jobs: Sequence[Job | Call], console: Console) -> None:
        self.jobs, self.console = jobs, console
        self.live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self.told: dict[int, State] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> "_Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self) -> None:
        """Show the state of every job."""
        if self.live:
            self.live.update(_table(self.jobs))
            return
        for job in self.jobs:
            if job.state not in ("waiting", "running") and self.told.get(id(job)) != job.state:
                self.told[id(job)] = job.state
                self._line(job)
        if time.monotonic() - self.last_line > LINE_SECONDS:
            for job in self.jobs:
                if job.state == "running":
                    self._line(job)

    def _line(self, job: Job | Call) -> None:
        self.last_line = time.monotonic()
        cells = (text for text in job.cells() if text)
        self.console.print(", ".join(job.labels) + ":", "  ".join(cells), markup=False, highlight=False, soft_wrap=True)


def _table(jobs: Iterable[Job | Call]) -> Table:
    table = Table("run", "", "epoch", "loss", "train", "score", "images/s", "time", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for job in jobs:
        bar = ProgressBar(total=1.0, completed=job.share, width=20)
        style = {"done": "bold", "failed": "red", "diverged": "yellow", "waiting": "dim"}.get(job.state, "")
        state = job.state if job.state in ("waiting", "failed", "diverged") else ""
        table.add_row(Text(", ".join(job.labels), style=style), state or bar, *job.cells()[:6])
    return table
