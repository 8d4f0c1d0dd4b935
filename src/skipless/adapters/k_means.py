"""k-means of numbers: the best codebook of up to 1,024 bins, then Lloyd's steps over all; without chance."""

import torch
from jaxtyping import Float
from torch import Tensor

_BINS = 1024
_STEPS = 300  # far above what it takes; a step cannot make the error larger


def k_means(values: Float[Tensor, "*shape"], count: int) -> Float[Tensor, " count"]:
    """A codebook of `count` ascending values, each the mean of those that are nearest to it.

    Numbers on a line have a best codebook, which dynamic programming finds. It is exact for up to about 500 different
    values. More are put into bins for it, half of them of the same width and half of the same number of values, and
    Lloyd's steps over the values follow. All is in float64; the codebook is in the values' dtype. Where there are fewer
    different values, it has these, and the last of them again.

    Args:
        values: any shape.
        count: of the codebook's entries.

    Example:
        >>> k_means(torch.tensor([[0.0, 0.2, 5.0], [5.2, 9.0, 0.1]]), 3).tolist()
        [0.10000000149011612, 5.099999904632568, 9.0]
    """
    ordered = values.detach().flatten().double().sort().values
    different = ordered.unique()
    if len(different) <= count:
        padding = different[-1:].expand(count - len(different))
        return torch.cat([different, padding]).to(values.dtype)
    middle = ordered.mean()  # sums of squares lose less of small spreads
    ends = _bins(ordered, different)
    start = _best_cuts(ordered - middle, ends, count)
    return (_lloyd(ordered - middle, start) + middle).to(values.dtype)


def nearest(values: Float[Tensor, "*shape"], codebook: Float[Tensor, " count"]) -> Float[Tensor, "*shape"]:
    """Each value's nearest entry of an ascending codebook.

    Example:
        >>> nearest(torch.tensor([0.2, 0.8]), torch.tensor([0.0, 1.0])).tolist()
        [0.0, 1.0]
    """
    wide = codebook.double()
    return codebook[torch.searchsorted((wide[1:] + wide[:-1]) / 2, values.detach().double())]


def _bins(ordered: Tensor, different: Tensor) -> Tensor:
    """How many values lie in the first bins, ascending from 0 to all; equal values lie in one bin."""
    half = _BINS // 2
    if len(different) <= half:
        edges = different
    else:
        share = torch.linspace(0, 1, half, dtype=ordered.dtype, device=ordered.device)
        places = (share * (len(ordered) - 1)).long()
        edges = torch.cat([ordered[0] + (ordered[-1] - ordered[0]) * share, ordered[places], ordered[-1:]])
    ends = torch.searchsorted(ordered, edges, right=True)
    return torch.cat([ends.new_zeros(1), ends]).unique()


def _best_cuts(ordered: Tensor, ends: Tensor, count: int) -> Tensor:
    """Means of the `count` runs of bins that have the least squared error together."""
    sums, squares = (torch.cat([ordered.new_zeros(1), one.cumsum(0)])[ends] for one in (ordered, ordered.square()))
    sizes, totals = (one[None, :] - one[:, None] for one in (ends, sums))
    error = squares[None, :] - squares[:, None] - totals.square() / sizes.clamp_min(1)
    error = error.masked_fill(sizes <= 0, torch.inf)
    best, choices = error[0], []
    for _ in range(count - 1):
        best, choice = (best[:, None] + error).min(0)
        choices.append(choice)
    cuts = [len(ends) - 1]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    at = torch.tensor([0, *reversed(cuts)], device=ends.device)
    return sums[at].diff() / ends[at].diff()


def _lloyd(ordered: Tensor, centres: Tensor) -> Tensor:
    """Means of the values that are nearest to each centre, until nothing moves; a centre without values stays."""
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    for _ in range(_STEPS):
        cuts = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, right=True)
        edges = torch.cat([cuts.new_zeros(1), cuts, cuts.new_full((1,), len(ordered))])
        sizes = edges.diff()
        moved = torch.where(sizes > 0, (sums[edges[1:]] - sums[edges[:-1]]) / sizes, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
