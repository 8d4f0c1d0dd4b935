"""Child processes of a sweep: they may send one line to the parent and never outlive it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

import torch

from skipless.errors import InputError
from skipless.training import TrainingDiverged, TrainingStopped

DIVERGED = 3  # exit code of a child whose run diverged
# What every run imports, by the modules themselves: packages import nothing before they are asked for a name.
_SHARED = (
    "skipless.conditioning.measurement.tracking",
    "skipless.evaluators",
    "skipless.models.libraries.builders",
    "skipless.optim.build",
    "skipless.recipes.kinds",
    "skipless.recipes.teacher_knn",
    "skipless.sweep.child",
    "skipless.tasks.dino.task",
    "skipless.tasks.supervised",
    "skipless.training.loop.fit",
)


class ChildProcess:
    """A process that runs a function, and may send one line before it ends."""

    def __init__(self, context: Any, work: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_run_child, args=(work, arguments, threads, theirs))
        self.process.start()
        theirs.close()

    def message(self) -> str:
        """Return the line that the process has sent; empty if it has sent none."""
        try:
            return self.pipe.recv() if self.pipe.poll() else ""
        except EOFError:  # the process ended without one
            return ""

    def stop(self) -> None:
        """Send SIGTERM to the process if it runs."""
        if self.process.is_alive():
            self.process.terminate()


def start_forkserver(preload: Sequence[str] = ()) -> Any:
    """Return a context whose processes are forked from a server with the modules of runs. They ignore Ctrl-C.

    Args:
        preload: further modules. A server that runs already stays as it is; its children import what they lack.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_SHARED, *preload])
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)
    return context


def _run_child(work: Callable[..., None], arguments: tuple[Any, ...], threads: int, pipe: Connection) -> None:
    """Run in the child: send the one line of an error, and end with the parent."""
    os.setsid()  # keeps Ctrl-C from the child, whose loop would react to it; the parent sends SIGTERM once
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
