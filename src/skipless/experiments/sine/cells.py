"""A cell's runs, read: accuracy at each number of bits, stored bytes, ranks, and the rates that were tried."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipless.experiments.sine.measured import FULL_BITS, AtBits, measured
from skipless.experiments.sine.recipe import SineCell
from skipless.report.run_records import Run, read_run


@dataclass(frozen=True, eq=False)
class SineRuns:
    """One cell: its runs, one a seed.

    Attributes:
        cell: method, rank and frequency.
        runs: one a seed.
        at: of each run, what was measured by bits; nothing of one that diverged.
        tried: held-out top-1 in percent by learning rate, where the rate was tuned; None of one that diverged.
    """

    cell: SineCell
    runs: tuple[Run, ...]
    at: tuple[Mapping[int, AtBits], ...]
    tried: Mapping[float, float | None]

    @classmethod
    def read(cls, cell: SineCell, folders: Sequence[Path], tried: Mapping[float, float | None]) -> "SineRuns":
        """The cell of these run folders."""
        at = tuple({one.bits: one for one in measured(folder)} for folder in folders)
        return cls(cell, tuple(read_run(folder) for folder in folders), at, tried)

    def top1(self, bits: int = FULL_BITS) -> tuple[float, ...]:
        """Accuracy of every finished run, in percent; nothing at bits that a cell does not have."""
        return tuple(by_bits[bits].top1 for by_bits in self.at if bits in by_bits)

    def mean(self, bits: int = FULL_BITS) -> float | None:
        """Mean accuracy over the seeds; None where there is none."""
        reached = self.top1(bits)
        return statistics.fmean(reached) if reached else None

    def spread(self, bits: int = FULL_BITS) -> float:
        """Sample standard deviation of the accuracies; 0 of one run."""
        reached = self.top1(bits)
        return statistics.stdev(reached) if len(reached) > 1 else 0.0

    def shown(self, bits: int = FULL_BITS) -> str:
        """Mean and sample standard deviation in words."""
        reached = self.top1(bits)
        if not reached:
            return "diverged" if all(run.diverged for run in self.runs) else "–"
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.fmean(reached):.1f}{spread}"

    def average(self, name: str, bits: int = FULL_BITS) -> float | None:
        """Mean over the seeds of one of the fields of `AtBits`; None where it is not there."""
        values = [getattr(by_bits[bits], name) for by_bits in self.at if bits in by_bits]
        return statistics.fmean(values) if values and None not in values else None

    def gained(self, other: "SineRuns", bits: int = FULL_BITS) -> tuple[float, ...]:
        """Points above another cell, seed by seed: both are fine-tuned from one model and start from one A."""
        pairs = zip(self.at, other.at, strict=True)
        return tuple(one[bits].top1 - two[bits].top1 for one, two in pairs if bits in one and bits in two)
