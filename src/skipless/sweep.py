"""Run many recipes side by side, each in a process of its own, and show how they get on.

The runs' folders are the only channel: a child trains and writes them, the parent reads them. Children end with their
parent, however it ends, and the same call goes on from their last checkpoints.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
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
from skipless.recipes import Recipe, run
from skipless.training import TrainingDiverged, TrainingStopped

State = Literal["waiting", "running", "done", "diverged", "failed"]
POLL_SECONDS = 0.25
LINE_SECONDS = 20.0
DIVERGED = 3  # exit code of a child whose run diverged
TAIL_BYTES = 4096  # holds the last few lines of a metrics.jsonl


@dataclass(eq=False)
class Job:
    """One run to be made, and what is known of it.

    Attributes:
        labels: what tells it apart, a word a column: `("skipless + init", "SOAP", "0")`.
        recipe: what to train.
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
    _process: Any = None
    _pipe: Connection | None = None

    def start(self, context: Any) -> None:
        """Train in a process of its own."""
        self._pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_train, args=(self.recipe, self.out, theirs))
        process.start()
        theirs.close()
        self._process, self.state = process, "running"

    def poll(self) -> None:
        """Read what the run has written, and notice its end."""
        if self.state != "running":
            return
        ended = not self._process.is_alive()
        self.latest |= _last_values(self.out / "metrics.jsonl")
        if ended:
            self.error = self._message()
            if self._process.exitcode == DIVERGED:
                self.state = "diverged"
            elif self._process.exitcode == 0:
                result = _read(self.out / "result.json")
                self.state, self.latest = "done", {**self.latest, "top1": result["top1"], "step": self.steps}
            else:
                self.state = "failed"
                self.error = self.error or f"its process ended with exit code {self._process.exitcode}"

    def _message(self) -> str:
        """The one line that an ended process may have sent."""
        try:
            return self._pipe.recv() if self._pipe is not None and self._pipe.poll() else ""
        except EOFError:  # it sent none
            return ""

    def stop(self) -> None:
        """Ask a run for a checkpoint and its end."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            self._process.join()


def run_jobs(jobs: Sequence[Job], *, parallel: int | None = None, console: Console | None = None) -> None:
    """Run all jobs, so many at a time; what is finished already is recognised at once.

    Args:
        jobs: in the order to start them.
        parallel: processes at a time; by default one a core, and one in all if some job takes a GPU. On the CPU each
            has one thread, however many there are: the number of threads decides rounding.
        console: where to show progress.

    Raises:
        InputError: once all others have ended, if a job could not be run. A diverged run is a result, not an error.
        KeyboardInterrupt: after all running jobs have written their checkpoints.
    """
    console = console or Console(stderr=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if parallel is None:
        gpu = torch.cuda.is_available() and any(job.recipe.fit.device != "cpu" for job in jobs)
        parallel = 1 if gpu else cores
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
                    job.start(context)
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


def _train(recipe: Recipe, out: Path, pipe: Connection) -> None:
    """The child: train quietly, send an error's one line, and never outlive the parent."""
    os.setsid()  # the loop will listen for Ctrl-C, too; but the parent asks its children to end, once
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(1)
    try:
        run(recipe.with_(fit__progress="none"), out)
    except TrainingDiverged:
        raise SystemExit(DIVERGED) from None
    except InputError as error:
        pipe.send(str(error))
        raise SystemExit(2) from None
    except TrainingStopped:
        raise SystemExit(1) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _last_values(path: Path) -> dict[str, Any]:
    """The latest training and evaluation values in a `metrics.jsonl`."""
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
        values |= parsed if "evaluation" not in parsed else {"top1": parsed["evaluation"]["top1"]}
    return values


class _Display:
    """A live table on a terminal; elsewhere a line when a run ends, and one now and then."""

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
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

    def _line(self, job: Job) -> None:
        self.last_line = time.monotonic()
        cells = (text for text in _cells(job) if text)
        self.console.print(", ".join(job.labels) + ":", "  ".join(cells), markup=False, highlight=False, soft_wrap=True)


def _table(jobs: Iterable[Job]) -> Table:
    table = Table("run", "", "epoch", "loss", "train", "top-1", "images/s", "left", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for job in jobs:
        bar = ProgressBar(total=job.steps, completed=job.latest.get("step", 0), width=20)
        style = {"done": "bold", "failed": "red", "diverged": "yellow", "waiting": "dim"}.get(job.state, "")
        state = job.state if job.state in ("waiting", "failed", "diverged") else ""
        epoch, loss, train, top1, rate, left = _cells(job)[:6]
        table.add_row(Text(", ".join(job.labels), style=style), state or bar, epoch, loss, train, top1, rate, left)
    return table


def _cells(job: Job) -> tuple[str, ...]:
    """Epoch, loss, training accuracy, top-1, images/s, time left, and what else is to say."""
    values = job.latest
    if job.state == "waiting" or not values:
        return ("", "", "", "", "", "", job.error or job.state)
    seconds, step = values.get("seconds", 0.0), values.get("step", 0)
    left = seconds * (job.steps - step) / step if step and job.state == "running" else 0
    return (
        f"{values['epoch']:.3g}" if "epoch" in values else "",
        f"loss {values['loss']:.3f}" if "loss" in values else "",
        f"{100 * values['accuracy']:.1f} %" if "accuracy" in values else "",
        f"top-1 {values['top1']:.1f} %" if "top1" in values else "",
        f"{values['images_per_second']:.0f}/s" if "images_per_second" in values else "",
        f"{left:.0f} s" if left else "",
        job.error or (job.state if job.state != "running" else ""),
    )
