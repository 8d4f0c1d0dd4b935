"""Learning rates tuned in a sweep: every cell tries a grid of its own, and takes the best."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from skipless.errors import InputError
from skipless.recipes.recipe import Recipe
from skipless.sweep.jobs import Job
from skipless.sweep.runner import run_jobs

Scores = dict[float, float | None]
Cell = TypeVar("Cell", bound=tuple[str, ...])
Made = TypeVar("Made", bound=Recipe)


def jobs_by_rate(base: Made, factors: Iterable[float], job: Callable[[Made], Job]) -> dict[float, Job]:
    """A grid of learning rates, each the recipe's own times a factor, to two digits, as jobs.

    Args:
        base: what is run, at a rate of its own.
        factors: what the rate is multiplied by.
        job: makes a job of a recipe.
    """
    rates = sorted(float(f"{base.optimizer.lr * factor:.2g}") for factor in set(factors))
    return {rate: job(base.with_(optimizer__lr=rate)) for rate in rates}


def tune_learning_rates(
    grids: Mapping[Cell, Mapping[float, Job]],
    *,
    jobs: int | None = None,
    threads: int = 1,
    all_may_diverge: bool = False,
    preload: Sequence[str] = (),
) -> dict[Cell, Scores]:
    """Run the grids of all cells, and note where the best rate is at the end of its grid.

    Args:
        grids: a job for each rate, by what is trained, in words.
        jobs: runs at a time.
        threads: CPU threads of each.
        all_may_diverge: whether a grid in which nothing trained is a result, and no error.
        preload: modules that all jobs need, as `run_jobs` takes them.

    Returns:
        The score of each rate; None where the run diverged.

    Raises:
        InputError: where nothing in a grid trained, unless that may be, or a run failed.
    """
    run_jobs([job for grid in grids.values() for job in grid.values()], parallel=jobs, threads=threads, preload=preload)
    reached = {
        cell: {rate: job.score if job.state == "done" else None for rate, job in grid.items()}
        for cell, grid in grids.items()
    }
    for cell, scores in reached.items():
        if all_may_diverge and all(score is None for score in scores.values()):
            print(f"note: every rate of {', '.join(cell)} diverged", file=sys.stderr)
            continue
        lowest = any(job.recipe.lower_is_better for job in grids[cell].values())
        if (best := best_rate(cell, scores, lowest=lowest)) in (min(scores), max(scores)):
            print(f"note: {best:g}, the best for {', '.join(cell)}, ends its grid", file=sys.stderr)
    return reached


def best_rate(cell: tuple[str, ...], scores: Mapping[float, float | None], *, lowest: bool = False) -> float:
    """The rate of the highest score, or of the lowest; None is a run that diverged.

    Args:
        cell: model and optimizer, in words for the message.
        scores: by rate.
        lowest: whether a lower score is better, as of a loss.

    Raises:
        InputError: if all of them diverged.
    """
    finished = {rate: value for rate, value in scores.items() if value is not None}
    if not finished:
        raise InputError(f"{', '.join(cell)}: every learning rate of {list(scores)} diverged; extend its grid")
    return (min if lowest else max)(finished, key=finished.__getitem__)
