"""The cells of a report: each trained with several seeds, at a rate of its own grid where that is asked for."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from skipless.data import ImageData
from skipless.recipes.recipe import Recipe
from skipless.report.write_files import write_files
from skipless.sweep.jobs import Job
from skipless.sweep.rates import Scores, best_rate, jobs_by_rate, tune_learning_rates
from skipless.sweep.runner import run_jobs

TUNING_SEED = 1000
"""Weights and order of the runs that choose a rate: not those of any reported one."""


@runtime_checkable
class Cell(Hashable, Protocol):
    """What a report trains several times."""

    @property
    def slug(self) -> str:
        """Its name as part of a path."""
        ...


def steps_on(images: ImageData) -> Callable[[Recipe], int]:
    """Counts the optimizer steps of a recipe on images, of which it may hold some out.

    Args:
        images: all of them.
    """
    return lambda recipe: recipe.fit.total_steps(len(images.train) - recipe.data.holdout)


OneCell = TypeVar("OneCell", bound=Cell)
Made = TypeVar("Made", bound=Recipe)


@dataclass(frozen=True, eq=False)
class Campaign(Generic[OneCell, Made]):
    """How the cells of a report become runs.

    Attributes:
        out: folder of the report. Its runs go into `out/runs/CELL-seedN`, those of the tuning into `out/tuning`.
        recipe: of a cell and a seed, at the recipe's own learning rate.
        labels: a cell in words, a column each.
        steps: optimizer steps of a recipe.
        jobs: runs at a time; by default one a core, or one in all with a GPU.
        preload: modules that all runs need besides, as `run_jobs` takes them.

    Example:
        >>> from typing import NamedTuple
        >>> from skipless.recipes import table1
        >>> class Rows(NamedTuple):
        ...     row: str
        ...
        ...     @property
        ...     def slug(self) -> str:
        ...         return self.row
        >>> campaign = Campaign(
        ...     Path("runs/mine"),
        ...     lambda cell, seed: table1("digits", cell.row, seed=seed),
        ...     lambda cell: (cell.row,),
        ...     lambda recipe: recipe.fit.total_steps(1397),
        ... )
        >>> [folder.name for folder in campaign.folders(Rows("skip"), seeds=2)]
        ['skip-seed0', 'skip-seed1']
    """

    out: Path
    recipe: Callable[[OneCell, int], Made]
    labels: Callable[[OneCell], tuple[str, ...]]
    steps: Callable[[Made], int]
    jobs: int | None = None
    preload: Sequence[str] = ()

    def folders(self, cell: OneCell, seeds: int) -> tuple[Path, ...]:
        """The run folders of a cell, one a seed."""
        return tuple(self.out / "runs" / f"{cell.slug}-seed{seed}" for seed in range(seeds))

    def train(
        self, cells: Sequence[OneCell], seeds: int, tuned: Mapping[OneCell, Scores] | None = None
    ) -> dict[OneCell, tuple[Path, ...]]:
        """Run what is missing and go on with what was cut off.

        Args:
            cells: what is trained.
            seeds: runs a cell, with seeds 0, 1, ...
            tuned: what `tune` has found. A cell that is in it takes its best rate, or the lowest where all diverged:
                that it diverges is what is found of it.

        Returns:
            The run folders of each cell, one a seed.

        Raises:
            InputError: if a run failed, or a folder holds another run. A diverged run is a result.
        """
        folders = {cell: self.folders(cell, seeds) for cell in cells}
        jobs = []
        for cell, own in folders.items():
            for seed, folder in enumerate(own):
                recipe = self.recipe(cell, seed)
                scores = (tuned or {}).get(cell)
                recipe = recipe.with_(optimizer__lr=None if scores is None else self._chosen(cell, scores, recipe))
                jobs.append(self._job(cell, f"seed {seed}", folder, recipe))
        run_jobs(jobs, parallel=self.jobs, preload=self.preload)
        return folders

    def tune(
        self,
        cells: Sequence[OneCell],
        factors: Iterable[float],
        held_out: Callable[[Made], Made],
        *,
        all_may_diverge: bool = False,
    ) -> dict[OneCell, Scores]:
        """What a run scores at each learning rate of every cell's grid, which also goes to `out/tuning.json`.

        Args:
            cells: what is tuned.
            factors: the grid, times the recipe's own rate.
            held_out: makes a recipe be scored on what no reported run is trained or scored on.
            all_may_diverge: whether a grid in which nothing trained is a result, and no error.

        Raises:
            InputError: where nothing in a grid trained, unless that may be, or a run failed.
        """
        named = {self.labels(cell): cell for cell in cells}
        assert len(named) == len(set(cells)), "cells are told apart by their labels, and two have the same"
        grids = {
            name: jobs_by_rate(held_out(self.recipe(cell, TUNING_SEED)), factors, partial(self._at_rate, cell))
            for name, cell in named.items()
        }
        reached = tune_learning_rates(grids, jobs=self.jobs, all_may_diverge=all_may_diverge, preload=self.preload)
        metric = self.recipe(cells[0], TUNING_SEED).metric
        found = {cell: reached[name] for name, cell in named.items()}
        write_files(self.out, {"tuning.json": [{"cell": cell.slug, metric: scores} for cell, scores in found.items()]})
        return found

    def _chosen(self, cell: OneCell, scores: Scores, recipe: Made) -> float:
        if all(score is None for score in scores.values()):
            return min(scores)
        return best_rate(self.labels(cell), scores, lowest=recipe.lower_is_better)

    def _at_rate(self, cell: OneCell, recipe: Made) -> Job:
        rate = f"{recipe.optimizer.lr:g}"
        return self._job(cell, f"lr {rate}", self.out / "tuning" / f"{cell.slug}-lr{rate}", recipe)

    def _job(self, cell: OneCell, last: str, folder: Path, recipe: Made) -> Job:
        return Job((*self.labels(cell), last), recipe, folder, self.steps(recipe))
