"""Kill, damage, start again, and compare with the run that nobody disturbed."""

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults import ranks
from faults.victim import PHASES, STEPS, Kind, Marks, body
from reference.tiny_run import lines, same, tensors

from skipless.errors import InputError
from skipless.training.run_folder.checkpoint import CHECKPOINT, PREVIOUS, latest_checkpoint, load_checkpoint

TARGETS = PHASES[:-1]


@dataclass
class Report:
    """What was done to the runs, and what became of them.

    Attributes:
        kills: ranks that were killed.
        phases: what they were doing.
        runs: that were taken to their end and compared.
        damaged: checkpoints that had a bit flipped or were cut off, by where.
        recovered: starts that went on from the checkpoint before.
        stubborn: ranks that did not end by themselves once another had died.
        divergences: runs that ended otherwise than the undisturbed one, in words.
        lost: checkpoints that had been complete and were gone after a kill, in words.
        undetected: damages that a load did not notice, in words.
        failures: anything else that should not be: a traceback, a hang.
    """

    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    stubborn: int = 0
    divergences: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    undetected: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not (self.divergences or self.lost or self.undetected or self.failures)

    def __str__(self) -> str:
        def listed(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"

        found = [*self.divergences, *self.lost, *self.undetected, *self.failures]
        return "\n".join(
            [
                f"kills: {self.kills} ({', '.join(f'{name} {self.phases[name]}' for name in PHASES)})",
                f"runs compared: {self.runs.total()} ({listed(self.runs)})",
                f"checkpoints damaged: {self.damaged.total()} ({listed(self.damaged)})",
                f"recovered from the previous checkpoint: {self.recovered}",
                f"ranks that had to be killed after another's death: {self.stubborn}",
                f"divergences: {len(self.divergences)}",
                f"lost checkpoints: {len(self.lost)}",
                f"undetected damages: {len(self.undetected)}",
                f"other failures: {len(self.failures)}",
                *found,
            ]
        )


class Undisturbed:
    """Runs to compare with, one of each kind, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[Kind, float] = {}

    def of(self, kind: Kind) -> Path:
        out = self._folder / f"undisturbed {kind}"
        if kind not in self._seconds:
            begin = time.monotonic()
            ranks.run(kind.processes, body(out, kind, Marks(kind.processes)), self._folder / f"{kind}.log")
            self._seconds[kind] = time.monotonic() - begin
        return out

    def seconds(self, kind: Kind) -> float:
        self.of(kind)
        return self._seconds[kind]


def torment(out: Path, kind: Kind, undisturbed: Undisturbed, kills: int, draw: random.Random, report: Report) -> None:
    """Kill one run so many times, start it again each time, let it end, and compare.

    Args:
        out: its folder.
        kind: of run.
        undisturbed: what it is compared with.
        kills: of one of its ranks each; fewer if it ends before.
        draw: moments and ranks; with some chance the newest checkpoint is damaged besides.
        report: is added to.
    """
    log = out.with_suffix(".log")
    marks = Marks(kind.processes)
    undisturbed.of(kind)
    for _ in range(kills):
        if not _killed_once(out, kind, undisturbed.seconds(kind), marks, draw, report, log):
            break
        if draw.random() < 0.25:
            _damage_newest(out, marks, draw, report)
        if _uses_previous(out):
            report.recovered += 1
    try:
        ranks.run(kind.processes, body(out, kind, marks), log)
    except (AssertionError, TimeoutError) as error:
        report.failures.append(f"{out.name}: {kind}: {error}")
        return
    report.runs[str(kind)] += 1
    for what in differences(out, undisturbed.of(kind)):
        report.divergences.append(f"{out.name}: {kind}: {what}")


def differences(out: Path, undisturbed: Path) -> list[str]:
    """What differs between two finished runs, times left out."""
    found = []
    if not same(tensors(out), tensors(undisturbed)):
        found.append("the final checkpoint differs")
    if lines(out) != lines(undisturbed):
        found.append("metrics.jsonl differs")
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (out, undisturbed))
    if one | {"seconds": 0} != other | {"seconds": 0}:
        found.append(f"result.json differs: {one} for {other}")
    return found


def _killed_once(
    out: Path, kind: Kind, seconds: float, marks: Marks, draw: random.Random, report: Report, log: Path
) -> bool:
    """Start the run and kill one of its ranks; False if it ended before."""
    rank = draw.randrange(kind.processes)
    target = draw.choice([*TARGETS, None, None, None])
    for each in range(kind.processes):
        marks.start(each)
    pids = ranks.start(kind.processes, body(out, kind, marks), log)
    _let_come(marks, rank if target not in ("snapshot", "write", "rename") else 0, target, seconds, draw)
    if target in ("write", "rename"):
        rank = 0  # the one that writes
    os.kill(pids[rank], signal.SIGKILL)
    codes, stubborn = ranks.end_group(pids)
    if codes[rank] != -signal.SIGKILL:
        return False
    report.kills += 1
    report.stubborn += stubborn
    report.phases[marks.phase(rank)] += 1
    # The others end by themselves: 2 for a lost peer, 143 for the SIGTERM that found them between two steps.
    strange = [code for other, code in enumerate(codes) if other != rank and code not in (0, 2, 143, -9, -15)]
    if strange:
        report.failures.append(f"{out.name}: {kind}: exit codes {codes}: {log.read_text()[-2000:]}")
    before = marks.saved()
    try:
        state, _ = latest_checkpoint(out)
    except InputError as error:
        report.lost.append(f"{out.name}: {kind}: {error}")
        return True
    if (0 if state is None else state["step"]) < before:
        report.lost.append(f"{out.name}: {kind}: step {before} was saved, {state and state['step']} is there")
    return True


def _let_come(marks: Marks, rank: int, target: str | None, seconds: float, draw: random.Random) -> None:
    """Wait for the moment: any within the length of a run, or some time after a phase begins for the nth time."""
    if target is None or target == "start":
        time.sleep(draw.uniform(0, seconds if target is None else 0.3 * seconds))
        return
    end = time.monotonic() + 2 * seconds
    for _ in range(draw.randint(1, 4)):
        while target not in marks.phases(rank) and time.monotonic() < end and "end" not in marks.phases(rank):
            time.sleep(0)
        last = time.monotonic() + draw.uniform(0, 0.02 if target in ("step", "evaluation") else 0.004)
        while time.monotonic() < last:
            pass
        if draw.random() < 0.4:
            return


def _uses_previous(out: Path) -> bool:
    """Whether the next start goes on from the checkpoint before."""
    if not (out / CHECKPOINT).exists():
        return (out / PREVIOUS).exists()
    try:
        load_checkpoint(out / CHECKPOINT)
    except InputError:
        return True
    return False


def _damage_newest(out: Path, marks: Marks, draw: random.Random, report: Report) -> None:
    """Flip a bit of the newest checkpoint, or cut it off, where a sound one lies beside it."""
    path = out / CHECKPOINT
    if not path.exists() or not (out / PREVIOUS).exists():
        return
    try:
        load_checkpoint(path)
        marks.save(load_checkpoint(out / PREVIOUS)["step"])  # what is left to be lost
    except InputError:  # damaged before, and not replaced yet
        return
    where = damage(path, draw)
    report.damaged[where] += 1
    try:
        load_checkpoint(path)
    except InputError:
        return
    report.undetected.append(f"{out.name}: {where} went unnoticed")


def damage(path: Path, draw: random.Random) -> str:
    """Flip one bit, or cut the file off, at a random place; say where."""
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    state = content.find(b'"__metadata__"')
    spans = {
        "cut off": (0, len(content)),
        "bit in the length": (0, 8),
        "bit in the header": (8, header),
        "bit in the JSON": (max(state, 8), header),
        "bit in a tensor": (header, len(content)),
    }
    where = draw.choice(list(spans))
    place = draw.randrange(*spans[where])
    if where == "cut off":
        del content[place:]
    else:
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return where


assert STEPS >= 20  # long enough to be met in every phase
