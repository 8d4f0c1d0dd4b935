"""k-means of numbers: a codebook by Lloyd's steps from quantiles, without chance."""

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 300  # far above what it takes; a step cannot make the error larger


def k_means(values: Float[Tensor, "*shape"], count: int) -> Float[Tensor, " count"]:
    """A codebook of `count` ascending values, each the mean of those that are nearest to it.

    Lloyd's steps start at quantiles, and are computed in float64. Where there are fewer different values, the codebook
    has these, and the last of them again. It is in the values' dtype.

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
    places = (torch.arange(count, device=ordered.device) + 0.5) / count * len(different)
    centres = different[places.long()]
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    for _ in range(_STEPS):
        cuts = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, right=True)
        edges = torch.cat([cuts.new_zeros(1), cuts, cuts.new_full((1,), len(ordered))])
        sizes = edges.diff()
        means = (sums[edges[1:]] - sums[edges[:-1]]) / sizes
        moved = torch.where(sizes > 0, means, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.to(values.dtype)


def nearest(values: Float[Tensor, "*shape"], codebook: Float[Tensor, " count"]) -> Float[Tensor, "*shape"]:
    """Each value's nearest entry of an ascending codebook.

    Example:
        >>> nearest(torch.tensor([0.2, 0.8]), torch.tensor([0.0, 1.0])).tolist()
        [0.0, 1.0]
    """
    wide = codebook.double()
    return codebook[torch.searchsorted((wide[1:] + wide[:-1]) / 2, values.detach().double())]
