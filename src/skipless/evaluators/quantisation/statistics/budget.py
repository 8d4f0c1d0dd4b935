"""Where a block's kurtosis comes from: what mixing by a linear map leaves, and what the skip adds.

Cumulants of independent numbers add. For y = x W with independent channels, g2(y_i) = sum_j w_ij^4 s_j^4 g2_j /
(sum_j w_ij^2 s_j^2)^2: a dense map of d channels leaves about 3 / (d + 2) of it. For a sum of independent branches,
g2(x + f) = (s_x^4 g2_x + s_f^4 g2_f) / (s_x^2 + s_f^2)^2: no factor of d. Channels of a trained model are not
independent; the distance between measured and predicted says by how much that matters.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.evaluators.quantisation.statistics.moments import Moments
from skipless.evaluators.quantisation.statistics.site_statistics import SiteStatistics
from skipless.models.blocks import BlockView, LinearMap, SubBlock


@dataclass(frozen=True, repr=False)
class BlockBudget(Record):
    """Where the excess kurtosis of one sub-block's output comes from.

    Attributes:
        block: the block's path in the model.
        sub_block: `"attn"` or `"mlp"`.
        skip: whether the tokens are added to what it gives.
        mixed_in: mean excess kurtosis of the channels that enter its last linear map.
        mixed: mean excess kurtosis of the channels that it gives, before the skip is added.
        mixed_predicted: the same, predicted from its input's channels, as if these were independent.
        entering: pooled excess kurtosis of the tokens that the skip carries; NaN without a skip.
        branch: pooled excess kurtosis of what the sub-block gives.
        leaving: pooled excess kurtosis of what leaves, sum or branch alone.
        predicted: of the sum, as if tokens and branch were independent; NaN without a skip.
        from_skip: the part of `predicted` that the skip's tokens bring; the rest is the branch's. NaN without a skip.
    """

    block: str
    sub_block: SubBlock
    skip: bool
    mixed_in: float
    mixed: float
    mixed_predicted: float
    entering: float
    branch: float
    leaving: float
    predicted: float
    from_skip: float

    def _summary(self) -> str:
        said = f"{self.block} {self.sub_block}, excess kurtosis {self.leaving:.3g}"
        return f"{said}, of which {self.from_skip:.3g} by the skip" if self.skip else f"{said}, no skip"

    def row(self) -> list[str]:
        """Its cells in the table of a model."""
        mixed, sums = (self.mixed_in, self.mixed_predicted, self.mixed), (self.entering, self.branch)
        last = (self.predicted, self.from_skip, self.leaving)
        return [self.block, self.sub_block, *(_cell(one) for one in (*mixed, *sums, *last))]

    def tables(self) -> tuple[Table, ...]:
        """One row of numbers."""
        return (budget_table([self]),)


_HEAD = (
    *("block", "sub-block", "into the last map", "out, predicted", "out, measured"),
    *("skip", "branch", "sum, predicted", "of which skip", "sum, measured"),
)


def _cell(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def budget_table(budgets: Sequence[BlockBudget]) -> Table:
    """A row for each sub-block."""
    about = (
        "excess kurtosis; columns 3 to 5: mean over channels, before and after the sub-block's last linear map; "
        "the others: all numbers pooled; predictions take channels, and skip and branch, for independent"
    )
    return Table(_HEAD, [one.row() for one in budgets], about, align="ll" + "r" * 8)


def mixed_kurtosis(
    w: Float[Tensor, "i o"], variance: Float64[Tensor, " i"], kurtosis: Float64[Tensor, " i"]
) -> Float64[Tensor, " o"]:
    """Excess kurtosis of each channel of x @ w, for independent channels of x: cumulants add.

    Args:
        w: the map.
        variance, kurtosis: variance and excess kurtosis of each channel of x. A constant channel adds nothing.

    Raises:
        InputError: if they are not of one length.

    Example:
        >>> w = torch.full((4, 1), 0.5)
        >>> mixed_kurtosis(w, torch.ones(4).double(), 6 * torch.ones(4).double())
        tensor([1.5000], dtype=torch.float64)
    """
    if not len(w) == len(variance) == len(kurtosis):
        raise InputError(f"w of {len(w)} inputs, {len(variance)} variances, {len(kurtosis)} kurtoses: give as many")
    squares = w.double().cpu().square()
    fourth = torch.where(variance > 0, variance.square() * kurtosis, torch.zeros_like(variance))
    return squares.square().mT @ fourth / (squares.mT @ variance).square()


def sum_kurtosis(x: tuple[float, float], f: tuple[float, float]) -> tuple[float, float]:
    """Excess kurtosis of x + f for independent x and f, as the parts that either brings.

    Args:
        x, f: variance and excess kurtosis of each.

    Example:
        >>> sum_kurtosis((1.0, 8.0), (1.0, 0.0))
        (2.0, 0.0)
    """
    total = (x[0] + f[0]) ** 2
    parts = [variance**2 * kurtosis / total if total else math.nan for variance, kurtosis in (x, f)]
    return parts[0], parts[1]


def budget_of(view: BlockView, sites: Mapping[str, SiteStatistics], after: SiteStatistics) -> tuple[BlockBudget, ...]:
    """The budgets of a block's attention and MLP.

    Args:
        view: of the block.
        sites: its statistics by site.
        after: of the tokens that leave it.
    """
    # The sum after a post-norm block's MLP is normed before it leaves: what is measured is the normed sum.
    carried = sites["MLP in"] if view.post_norm else sites["middle"]
    parts: tuple[tuple[SubBlock, LinearMap, str, SiteStatistics, SiteStatistics, SiteStatistics], ...] = (
        ("attn", view.output, "heads", sites["tokens"], sites["attention out"], sites["middle"]),
        ("mlp", view.mlp_out, "hidden", carried, sites["MLP out"], after),
    )
    found = []
    for name, linear, source, entering, branch, leaving in parts:
        inner, skip = sites[source].moments, name in view.skips
        mixed = mixed_kurtosis(linear.w, inner.variance, inner.kurtosis)
        own, (variance, kurtosis) = _pair(branch), _pair(entering)
        carried_by = (variance * view.gain(name) ** 2, kurtosis)
        skipped, rest = sum_kurtosis(carried_by, own) if skip else (math.nan, math.nan)
        means = (_mean(inner.kurtosis), _mean(branch.moments.kurtosis), _mean(mixed))
        pooled = (carried_by[1] if skip else math.nan, own[1], leaving.kurtosis["pooled"])
        found.append(BlockBudget(view.name, name, skip, *means, *pooled, skipped + rest, skipped))
    return tuple(found)


def _pair(site: SiteStatistics) -> tuple[float, float]:
    one: Moments = site.moments.pooled()
    return one.variance.item(), one.kurtosis.item()


def _mean(values: Tensor) -> float:
    return values.nanmean().item()
