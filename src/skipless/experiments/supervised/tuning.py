"""Peak learning rates of Table 1's cells: what `--tune` tries, on images held out of training."""

from collections.abc import Sequence
from pathlib import Path

from skipless.data import ImageData
from skipless.errors import InputError
from skipless.experiments.supervised.recipe import CELLS, GRID, Cell, Scale, table1
from skipless.recipes.recipe import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.write_files import write_files
from skipless.sweep import Job
from skipless.sweep.rates import best_rate, tune_learning_rates

HOLDOUT = {"digits": 200, "fashion": 5000}  # training images that learning rates are tuned on
TUNING_SEED = 1000  # weights and order of the tuning runs, not those of any reported one


def tuned_rates(
    scale: Scale,
    out: Path,
    images: ImageData,
    *,
    cells: Sequence[Cell] = CELLS,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
) -> dict[Cell, float]:
    """The best learning rate of each of these cells' grids, by accuracy on images held out of training.

    Raises:
        InputError: where nothing in a cell's grid trained, or a run failed.
    """
    if scale not in HOLDOUT:
        raise InputError(f"--tune holds images out of training at scales {', '.join(HOLDOUT)}, not at {scale!r}")
    made: dict[Cell, dict[float, Job]] = {}
    for cell in cells:
        base = table1(scale, cell.row, cell.optimizer, seed=TUNING_SEED, data=data)
        for rate in GRID[scale][cell]:
            recipe = base.with_(optimizer__lr=rate, data__holdout=HOLDOUT[scale], fit__epochs=epochs)
            folder = out / "tuning" / f"{cell.slug}-lr{rate:g}"
            made.setdefault(cell, {})[rate] = job_of(cell, f"lr {rate:g}", recipe, folder, images)
    reached = tune_learning_rates(made, jobs=jobs)
    readable = [{"row": row, "optimizer": optimizer, "top1": scores} for (row, optimizer), scores in reached.items()]
    write_files(out, {"tuning.json": readable})
    return {cell: best_rate(cell, reached[cell]) for cell in made}


def job_of(cell: Cell, last: str, recipe: Recipe, out: Path, images: ImageData) -> Job:
    """A cell's run as a job of the sweep; `last` is the last word of its label."""
    samples = len(images.train) - recipe.data.holdout
    return Job((cell.row, OPTIMIZER_LABEL[cell.optimizer], last), recipe, out, recipe.fit.total_steps(samples))
