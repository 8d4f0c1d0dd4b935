"""Moments of numbers that come in batches: counts, means and sums of powers of deviations, merged without loss.

Sums of powers about 0 would lose digits where a mean is large. Each batch is centred by its own mean, and merged by the
formulas of Pébay (2008) for the second to the fourth central moment.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.display import Record

_ROUNDING = 16 * torch.finfo(torch.float64).eps  # of a mean, relative


@dataclass(frozen=True, eq=False, repr=False)
class Moments(Record):
    """Central moments of each channel; `m2` to `m4` are sums of powers of deviations from the mean.

    Attributes:
        count: numbers in each channel.
        mean, m2, m3, m4: of each channel.
    """

    count: int
    mean: Float64[Tensor, " d"]
    m2: Float64[Tensor, " d"]
    m3: Float64[Tensor, " d"]
    m4: Float64[Tensor, " d"]

    def _summary(self) -> str:
        return f"{len(self.mean)} channels of {self.count:,} numbers"

    @classmethod
    def of(cls, rows: Float64[Tensor, "n d"]) -> "Moments":
        """The moments of each column."""
        mean = rows.mean(0)
        apart = rows - mean
        square = apart.square()
        sums = (square.sum(0), (apart * square).sum(0), square.square_().sum(0))
        return cls(len(rows), mean.cpu(), *(one.cpu() for one in sums))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both together."""
        a, b = self.count, other.count
        n = a + b
        gap = other.mean - self.mean
        m2 = self.m2 + other.m2 + gap**2 * (a * b / n)
        m3 = self.m3 + other.m3 + gap**3 * (a * b * (a - b) / n**2) + 3 * gap * (a * other.m2 - b * self.m2) / n
        m4 = (
            self.m4
            + other.m4
            + gap**4 * (a * b * (a * a - a * b + b * b) / n**3)
            + 6 * gap**2 * (a * a * other.m2 + b * b * self.m2) / n**2
            + 4 * gap * (a * other.m3 - b * self.m3) / n
        )
        return Moments(n, self.mean + gap * (b / n), m2, m3, m4)

    @property
    def variance(self) -> Float64[Tensor, " d"]:
        """Of each channel, by its number."""
        return self.m2 / self.count

    @property
    def kurtosis(self) -> Float64[Tensor, " d"]:
        """Excess kurtosis of each channel, k4 / k2^2; NaN where it is constant."""
        equal = self.m2 <= self.count * (_ROUNDING * self.mean) ** 2  # the mean of equal numbers may differ from them
        return torch.where(equal, torch.nan, self.count * self.m4 / self.m2**2 - 3)

    def pooled(self) -> "Moments":
        """The moments of all channels' numbers together, as one channel."""
        mean = self.mean.mean()
        gap = self.mean - mean
        m2 = self.m2 + self.count * gap**2
        m3 = self.m3 + 3 * gap * self.m2 + self.count * gap**3
        m4 = self.m4 + 4 * gap * self.m3 + 6 * gap**2 * self.m2 + self.count * gap**4
        sums = (mean, m2.sum(), m3.sum(), m4.sum())
        return Moments(self.count * len(gap), *(one.reshape(1) for one in sums))


def flat(x: Tensor) -> Float64[Tensor, "n d"]:
    """Numbers as rows of channels, in float64."""
    return x.detach().reshape(-1, x.shape[-1]).to(torch.float64)
