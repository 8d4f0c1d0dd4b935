"""What is known of one site: a record of numbers, and the state that gathers them batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from typing import Any, get_args

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from skipless.display import Record, Table
from skipless.display.values import few_words
from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.grid import Per, decibels, rounding_noise
from skipless.evaluators.quantisation.statistics.histogram import counts_of
from skipless.evaluators.quantisation.statistics.kurtosis import (
    Kurtosis,
    as_sequences,
    neuron_kurtosis,
    of_sequences,
    of_tokens,
)
from skipless.evaluators.quantisation.statistics.moments import Moments, flat

PERS: tuple[Per, ...] = get_args(Per)


@dataclass(frozen=True, eq=False, repr=False)
class SiteStatistics(Record):
    """Statistics of the activations at one place of one block.

    Attributes:
        block: the block's path in the model.
        site: the place, one of `skipless.evaluators.quantisation.SITES`, or `"tokens out"` after the last block.
        count: numbers that were seen.
        kurtosis: excess kurtosis by its definition, as in `excess_kurtosis`; NaN where all numbers are equal. Of
            probabilities, whose columns are tokens, `"token"` and `"neuron"` are NaN.
        peak: the largest magnitude over the root mean square of all numbers.
        rms: root mean square.
        channel_mean, channel_variance: of each channel over all tokens; empty for probabilities, whose columns are
            tokens.
        sqnr: decibels by bits, then by what has a scale of its own. `"tensor"` and `"channel"` have the scales of each
            batch as it was given.
        histogram: counts of negative and positive numbers by magnitude, `(2, bins)`; four bins in a doubling, from
            2^-24 to 2^24.
    """

    block: str
    site: str
    count: int
    kurtosis: Mapping[Kurtosis, float]
    peak: float
    rms: float
    channel_mean: Float64[Tensor, " d"] = field(repr=False)
    channel_variance: Float64[Tensor, " d"] = field(repr=False)
    sqnr: Mapping[int, Mapping[Per, float]] = field(repr=False)
    histogram: Int64[Tensor, "2 bins"] = field(repr=False)
    moments: Moments = field(repr=False)

    def _summary(self) -> str:
        return f"{self.block} {self.site}, excess kurtosis {self.kurtosis['pooled']:.3g}, peak {self.peak:.3g} RMS"

    def row(self) -> list[str]:
        """Its cells in the table of a model."""
        decibels = [few_words(round(by[per], 1)) for by in self.sqnr.values() for per in PERS]
        return [
            self.block,
            self.site,
            *("–" if isnan(one) else f"{one:.3g}" for one in self.kurtosis.values()),
            f"{self.peak:.3g}",
            *decibels,
        ]

    def tables(self) -> tuple[Table, ...]:
        """One row of numbers."""
        return (Table(heads(self.sqnr), [self.row()], _about(self.count), align=aligned(self.sqnr)),)

    def record(self) -> dict[str, Any]:
        """The numbers as plain values for JSON; histograms and channels are lists."""
        return {
            "count": self.count,
            "kurtosis": dict(self.kurtosis),
            "peak": self.peak,
            "rms": self.rms,
            "sqnr": {str(bits): dict(by) for bits, by in self.sqnr.items()},
            "channel_mean": self.channel_mean.tolist(),
            "channel_variance": self.channel_variance.tolist(),
            "histogram": self.histogram.tolist(),
        }


def _about(count: int) -> str:
    return f"n = {count:,} numbers; excess kurtosis by four definitions; SQNR in dB"


def heads(sqnr: Mapping[int, Mapping[Per, float]]) -> list[str]:
    """Titles of the columns of `SiteStatistics.row`."""
    return ["block", "site", *get_args(Kurtosis), "peak", *(f"{bits} bit, {per}" for bits in sqnr for per in PERS)]


def aligned(sqnr: Mapping[int, Any]) -> str:
    """How they are aligned."""
    return "ll" + "r" * (len(heads(sqnr)) - 2)


@dataclass(eq=False)
class SiteState:
    """What is kept of a site while batches come: moments of channels, a histogram and sums. Nothing grows."""

    bits: Sequence[int]
    channels: bool
    moments: Moments | None = None
    histogram: Tensor | None = None
    sequences: tuple[float, int] = (0.0, 0)
    tokens: tuple[float, int] = (0.0, 0)
    largest: float = 0.0
    power: float = 0.0
    noise: dict[tuple[int, Per], float] = field(default_factory=dict)

    def add(self, x: Tensor, where: str) -> None:
        """Take a batch `(b, n, d)` in.

        Raises:
            InputError: if it has numbers that are not finite, or another width than before.
        """
        low, high = (one.item() for one in x.aminmax())  # NaN comes through
        if not (isfinite(low) and isfinite(high)):
            raise InputError(f"{where} has activations that are not finite: look for NaN or infinity in the weights")
        if x.dtype not in (torch.float32, torch.float64):
            x = x.float()
        exact = x.double()
        found = Moments.of(flat(exact if self.channels else exact.reshape(-1, 1)))
        self.moments = found if self.moments is None else self.moments.merged(found)
        counts = counts_of(x)
        self.histogram = counts if self.histogram is None else self.histogram + counts
        self.largest = max(self.largest, abs(low), abs(high))
        shaped = as_sequences(exact)
        self.sequences = _summed(self.sequences, of_sequences(shaped))
        self.tokens = _summed(self.tokens, of_tokens(shaped))
        self.power += torch.linalg.vector_norm(exact).square().item()
        for per in PERS:
            for bits, noise in zip(self.bits, rounding_noise(x, self.bits, per), strict=True):
                self.noise[bits, per] = self.noise.get((bits, per), 0.0) + noise.item()

    def result(self, block: str, site: str) -> SiteStatistics:
        """What was found."""
        assert self.moments is not None
        assert self.histogram is not None
        one = self.moments.pooled()
        squares = self.moments.variance + self.moments.mean**2
        rms = squares.mean().sqrt().item()
        kurtosis: dict[Kurtosis, float] = {
            "pooled": one.kurtosis.item(),
            "sequence": _mean(self.sequences),
            "token": _mean(self.tokens) if self.channels else nan,
            "neuron": neuron_kurtosis(squares) if self.channels else nan,
        }
        none = torch.zeros(0, dtype=torch.float64)
        return SiteStatistics(
            block,
            site,
            one.count,
            kurtosis,
            self.largest / rms if rms else float("nan"),
            rms,
            self.moments.mean if self.channels else none,
            self.moments.variance if self.channels else none,
            {bits: {per: decibels(self.power, self.noise[bits, per]) for per in PERS} for bits in self.bits},
            self.histogram,
            self.moments,
        )

    @property
    def bytes(self) -> int:
        """Memory of what is kept."""
        held = [] if self.moments is None else [self.moments.mean, self.moments.m2, self.moments.m3, self.moments.m4]
        held += [] if self.histogram is None else [self.histogram]
        return sum(one.nbytes for one in held)


def _summed(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    return a[0] + b[0], a[1] + b[1]


def _mean(of: tuple[float, int]) -> float:
    return of[0] / of[1] if of[1] else float("nan")
