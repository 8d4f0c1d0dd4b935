"""Histograms whose bins need no range beforehand: by sign and by the binary logarithm of the magnitude."""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

LEAST, MOST = -24, 24  # binary logarithms of the smallest and the largest magnitude that is told apart
STEPS = 4  # bins in each doubling
BINS = (MOST - LEAST) * STEPS


def counts_of(x: Tensor) -> Int64[Tensor, "2 bins"]:
    """Counts of negative and of positive numbers by magnitude; what is smaller or larger falls into the last bins."""
    flat = x.detach().flatten().float()
    places = flat.abs().log2_().sub_(LEAST).mul_(STEPS).floor_().clamp_(0, BINS - 1)  # log2(0) is -inf: the first bin
    places.add_(flat > 0, alpha=BINS)
    return torch.bincount(places.long(), minlength=2 * BINS).reshape(2, BINS).cpu()


def edges() -> Float64[Tensor, " edges"]:
    """The magnitudes between which the bins lie."""
    return 2.0 ** torch.linspace(LEAST, MOST, BINS + 1, dtype=torch.float64)
