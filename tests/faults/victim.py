"""The run that is killed: seconds long, every source of randomness, and a mark in shared memory of what it is doing."""

import json
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reference.tiny_run import BATCH, SAMPLES, digits, train

from skipless.training.loop import fit as loop
from skipless.training.run_folder import async_writer as writing, atomic as files, checkpoint
from skipless.training.run_folder.checkpoint import CHECKPOINT, PREVIOUS

PHASES = ("start", "step", "evaluation", "snapshot", "write", "rename", "end")
EPOCHS = 4
STEPS = EPOCHS * (SAMPLES // BATCH)
SLOW = 0.003  # seconds that a write and the time between two renames are drawn out to, or no kill would ever meet them
_CELL = 16  # bytes of one rank: phase of the loop, phase of the writing thread (0: idle), padding, checkpointed step


digits()  # here and not in every victim: reading them imports scikit-learn


@dataclass(frozen=True)
class Kind:
    """Which run: how many processes share what, moved by which optimizer."""

    processes: int = 1
    strategy: str = "auto"
    optimizer: str = "AdamW"

    def __str__(self) -> str:
        return f"{self.processes} x {self.strategy} {self.optimizer}"


class Marks:
    """Shared memory in which ranks note what they do; what a killed one was doing can be read afterwards."""

    def __init__(self, processes: int) -> None:
        self._memory = mmap.mmap(-1, _CELL * processes)

    def phase(self, rank: int) -> str:
        """Where a rank is: in the writing of a checkpoint, if one is being written, else in the loop."""
        loops, writes = self._memory[rank * _CELL], self._memory[rank * _CELL + 1]
        return PHASES[writes or loops]

    def phases(self, rank: int) -> set[str]:
        """Both: what the loop does and, if it is at work, the writing thread."""
        loops, writes = self._memory[rank * _CELL], self._memory[rank * _CELL + 1]
        return {PHASES[loops]} | ({PHASES[writes]} if writes else set())

    def saved(self) -> int:
        """The step of the last checkpoint that was complete, 0 before the first."""
        return struct.unpack_from("q", self._memory, 8)[0]

    def start(self, rank: int) -> None:
        self.set(rank, "start")
        self._memory[rank * _CELL + 1] = 0

    def set(self, rank: int, phase: str, *, writing: bool = False) -> None:
        self._memory[rank * _CELL + writing] = PHASES.index(phase) if phase else 0

    def save(self, step: int) -> None:
        struct.pack_into("q", self._memory, 8, step)


def victim(out: Path, kind: Kind, marks: Marks, rank: int) -> None:
    """Train in the folder as this kind of run does, leaving marks; to be called in a process of its own."""
    torch.set_num_threads(1)
    marks.start(rank)
    _mark(marks, rank)
    train(
        out, kind.optimizer, epochs=EPOCHS, strategy=kind.strategy, schedule=lambda step: 2e-3 * (1 - step / STEPS),
        evaluate_every=2, progress="lines",
    )  # fmt: skip
    marks.set(rank, "end")


def _mark(marks: Marks, rank: int) -> None:
    """Wrap what the loop calls, in this process alone."""

    def within(phase: str, function: Callable[..., Any], back: str, *, writing: bool = False) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            marks.set(rank, phase, writing=writing)
            try:
                return function(*args, **kwargs)
            finally:
                marks.set(rank, back, writing=writing)

        return marked

    def write(folder: Path, taken: checkpoint.Snapshot) -> Path:
        path = whole_write(folder, taken)
        marks.save(json.loads(taken.text)["step"])
        return path

    def save(*args: Any) -> None:
        save_file(*args)
        time.sleep(SLOW)

    def replace(source: Path, target: Path) -> None:
        if Path(target).name not in (CHECKPOINT, PREVIOUS):
            return rename(source, target)
        marks.set(rank, "rename", writing=True)
        rename(source, target)
        time.sleep(SLOW)
        return marks.set(rank, "write", writing=True)

    engine: Any = loop.Engine
    whole_write, save_file, rename = writing.write_snapshot, checkpoint.save_file, os.replace
    engine.take_step = within("step", engine.take_step, "step")
    engine.state = within("snapshot", engine.state, "step")
    loop._Run._run_evaluation = within("evaluation", loop._Run._run_evaluation, "step")  # type: ignore[method-assign]
    writing.write_snapshot = within("write", write, "", writing=True)
    checkpoint.save_file = save
    files.os.replace = replace


def body(out: Path, kind: Kind, marks: Marks) -> Callable[[int], None]:
    """What every rank of a run calls."""
    return partial(victim, out, kind, marks)
