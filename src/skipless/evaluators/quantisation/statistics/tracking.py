"""The measurement of `--measured activations`: kurtosis, peaks and SQNR of every block through training."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from torch import Tensor, nn

from skipless.evaluators.quantisation.statistics.activations import SHOWN, ActivationStatistics, activation_statistics
from skipless.evaluators.quantisation.statistics.site_statistics import SiteStatistics

_BITS = (8, 4)
_NUMBERS: Mapping[str, Callable[[SiteStatistics], float]] = {
    "kurtosis": lambda one: one.kurtosis["pooled"],
    "peak": lambda one: one.peak,
    "sqnr_8": lambda one: one.sqnr[8]["token"],
    "sqnr_4": lambda one: one.sqnr[4]["token"],
}


def track_activations(given: Tensor) -> Callable[[nn.Module], dict[str, Any]]:
    """Make the measurement that `fit` calls: what a model's activations are like at the same inputs each time.

    Args:
        given: normalised images `(b, c, h, w)`, or token ids `(b, n)`.

    Returns:
        What maps a model to `{"activations": {number: {site: [a value for each block]}}}`, for pooled excess kurtosis,
        largest magnitude over RMS, and the SQNR of 8 and 4 bits with a scale for each token, in dB.
    """

    def measure(model: nn.Module) -> dict[str, Any]:
        first = next(model.parameters())
        here = given.to(first.device, first.dtype) if given.is_floating_point() else given.to(first.device)
        found = activation_statistics(model, [here], bits=_BITS)
        return {"activations": {name: _by_site(found, of) for name, of in _NUMBERS.items()}}

    return measure


def _by_site(found: ActivationStatistics, of: Callable[[SiteStatistics], float]) -> dict[str, list[float | None]]:
    """JSON has no NaN: what is no number is null."""
    return {site: [value if isfinite(value) else None for value in found.by_block(site, of).values()] for site in SHOWN}
