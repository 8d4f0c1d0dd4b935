"""A child of a sweep: a process that works quietly, may send one line, and never outlives its parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

import torch

from skipless.errors import InputError
from skipless.training import TrainingDiverged, TrainingStopped

DIVERGED = 3  # exit code of a child whose run diverged


class ChildProcess:
    """A process, and the one line that it may send before it ends."""

    def __init__(self, context: Any, work: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_run_child, args=(work, arguments, threads, theirs))
        self.process.start()
        theirs.close()

    def message(self) -> str:
        """What it has sent; empty if nothing."""
        try:
            return self.pipe.recv() if self.pipe.poll() else ""
        except EOFError:  # it sent none
            return ""

    def stop(self) -> None:
        """Ask it to end."""
        if self.process.is_alive():
            self.process.terminate()


def start_forkserver() -> Any:
    """Processes forked from a server that has loaded torch once. Ctrl-C is the parent's: none of them hears it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skipless.recipes"])
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)
    return context


def _run_child(work: Callable[..., None], arguments: tuple[Any, ...], threads: int, pipe: Connection) -> None:
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
