"""Loss curves for plots: subsampled, smoothed and averaged over seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from skipless.report.run_records import Run

DRAWN = 300  # points of a curve at most


class Band(NamedTuple):
    """Mean and sample standard deviation (`spread`) over seeds, on a common grid; `spread` is None for one run."""

    epoch: Float[np.ndarray, " grid"]
    mean: Float[np.ndarray, " grid"]
    spread: Float[np.ndarray, " grid"] | None


def thin(
    epoch: Float[np.ndarray, " points"], loss: Float[np.ndarray, " points"], limit: int = DRAWN
) -> tuple[Float[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Average neighbouring points until at most `limit` remain, so that a plot's size does not grow with the steps.

    Example:
        >>> thin(np.arange(4.0), np.array([1.0, 3.0, 5.0, 7.0]), limit=2)
        (array([0.5, 2.5]), array([2., 6.]))
    """
    if epoch.size <= limit:
        return epoch, loss
    starts = np.linspace(0, epoch.size, limit, endpoint=False).astype(int)
    counts = np.diff(starts, append=epoch.size)
    return np.add.reduceat(epoch, starts) / counts, np.add.reduceat(loss, starts) / counts


def smooth(
    epoch: Float[np.ndarray, " points"],
    loss: Float[np.ndarray, " points"],
    at: Float[np.ndarray, " grid"],
    width: float,
) -> Float[np.ndarray, " grid"]:
    """Smooth the losses with a Gaussian kernel (Nadaraya-Watson).

    Args:
        epoch: positions of the losses.
        loss: the losses.
        at: positions at which to estimate the loss.
        width: standard deviation of the kernel, in epochs.

    Example:
        >>> smooth(np.array([0.0, 1.0, 2.0]), np.array([4.0, 4.0, 4.0]), at=np.array([0.5]), width=0.5)
        array([4.])
    """
    exponent = -0.5 * ((at[:, None] - epoch[None, :]) / width) ** 2
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))  # the shift keeps wide gaps from 0 / 0
    return weights @ loss / weights.sum(axis=1)


def smoothed(run: Run) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]] | None:
    """A run's training loss at 200 places, smoothed over a hundredth of its length; None of a single logged loss."""
    if run.epoch.size < 2:
        return None
    at = np.linspace(run.epoch[0], run.epoch[-1], 200)
    width = max(0.01 * float(run.epoch[-1] - run.epoch[0]), 1e-9)
    return at, smooth(run.epoch, run.loss, at, width)


def band(runs: Sequence[Run], points: int = 200, width: float = 0.01) -> Band | None:
    """Smooth every run on one grid over the epochs that all runs cover; None if they share fewer than two points.

    Args:
        runs: runs that differ in the seed only. Leave out runs that stopped early, because they shorten the curve.
        points: number of grid points.
        width: width of the kernel, as a fraction of the run. It is at least the distance of the losses, since a
            narrower kernel would draw steps.
    """
    curves = [thin(run.epoch, run.loss, limit=1000) for run in runs]
    if not curves or min(epoch.size for epoch, _ in curves) < 2:
        return None
    first, last = max(epoch[0] for epoch, _ in curves), min(epoch[-1] for epoch, _ in curves)
    if first >= last:
        return None
    grid = np.linspace(first, last, points)
    spacing = float(np.median(np.diff(curves[0][0])))
    kernel = max(width * float(last - first), spacing)
    smoothed = np.stack([smooth(epoch, loss, grid, kernel) for epoch, loss in curves])
    return Band(grid, smoothed.mean(axis=0), smoothed.std(axis=0, ddof=1) if len(curves) > 1 else None)
