"""The runs behind the depth report, made or resumed; what becomes of their tokens; and the files."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from skipless.conditioning.measurement.tracking import first_images
from skipless.data import ImageData, load_images
from skipless.data.scenes.write import write_single_objects
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.experiments.depth import Options
from skipless.experiments.depth.recipe import GRID, DepthCell, depth_recipe
from skipless.experiments.depth.report import DepthRuns, write_depth
from skipless.recipes import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import read_run
from skipless.report.write_files import write_files
from skipless.studies.token_history import token_history
from skipless.sweep import Job, run_jobs
from skipless.sweep.rates import best_rate, jobs_by_rate, tune_learning_rates

HOLDOUT = {"digits": 200, "fashion": 5000, "scenes": 1000}  # training images that learning rates are tuned on
TUNING_SEED = 1000
_IMAGES = 64  # whose tokens are measured


def reproduce_depth(options: Options, out: Path, *, command: str = "") -> dict[str, Path]:
    """Accuracy and token similarity by depth: run what is missing, go on with what was cut off, write the report.

    Args:
        options: which models, depths, optimizers and seeds.
        out: folder of the report; the runs go into `out/runs`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: give at least 1")
    if not (options.depths and options.rows and options.optimizers):
        raise InputError("--depths, --rows and --optimizers: give at least one of each")
    cells = [
        DepthCell(row, optimizer, depth)
        for optimizer in options.optimizers
        for row in options.rows
        for depth in sorted(set(options.depths))
    ]
    options = replace(options, data=_data(options, out))
    images = load_images(depth_recipe(options.scale, cells[0], data=options.data).data)
    rates = _tuned(options, cells, out, images) if options.tune else {}
    planned = {
        (cell, seed): _recipe(options, cell, seed).with_(optimizer__lr=rates.get(cell))
        for cell in cells
        for seed in range(options.seeds)
    }
    folders = {key: out / "runs" / f"{key[0].slug}-seed{key[1]}" for key in planned}
    jobs = [_job(cell, f"seed {seed}", planned[cell, seed], folders[cell, seed], images) for cell, seed in planned]
    run_jobs(jobs, parallel=options.jobs)
    batch = first_images(images, min(_IMAGES, len(images.val)))
    found = [
        DepthRuns(
            cell,
            tuple(read_run(folders[cell, seed]) for seed in range(options.seeds)),
            **token_history(folders[cell, 0], batch),
        )
        for cell in cells
    ]
    return write_depth(
        found, out, first=planned[cells[0], 0], images=len(images.val), tuned=options.tune, command=command
    )


def _data(options: Options, out: Path) -> str | None:
    """Where the data is: given, or at scale scenes written into `out/data`."""
    if options.scale != "scenes" or options.data is not None:
        return options.data
    return write_single_objects((out / "data").resolve())


def _recipe(options: Options, cell: DepthCell, seed: int) -> Recipe:
    return depth_recipe(options.scale, cell, seed=seed, data=options.data, epochs=options.epochs)


def _tuned(options: Options, cells: Sequence[DepthCell], out: Path, images: ImageData) -> dict[DepthCell, float]:
    """The best learning rate of every cell's grid, by accuracy on images held out of training."""
    made: dict[tuple[str, str], dict[float, Job]] = {}
    named = {(f"{cell.row}, {counted(cell.depth, 'block')}", cell.optimizer): cell for cell in cells}
    for name, cell in named.items():
        base = _recipe(options, cell, TUNING_SEED).with_(data__holdout=HOLDOUT[options.scale])
        made[name] = jobs_by_rate(base, GRID, partial(_tuning_job, cell, out, images))
    reached = tune_learning_rates(made, jobs=options.jobs)
    write_files(out, {"tuning.json": [{"cell": named[name].slug, "top1": scores} for name, scores in reached.items()]})
    return {cell: best_rate(name, reached[name]) for name, cell in named.items()}


def _tuning_job(cell: DepthCell, out: Path, images: ImageData, recipe: Recipe) -> Job:
    rate = f"{recipe.optimizer.lr:g}"
    return _job(cell, f"lr {rate}", recipe, out / "tuning" / f"{cell.slug}-lr{rate}", images)


def _job(cell: DepthCell, last: str, recipe: Recipe, out: Path, images: ImageData) -> Job:
    samples = len(images.train) - recipe.data.holdout
    labels = (cell.row, counted(cell.depth, "block"), OPTIMIZER_LABEL[cell.optimizer], last)
    return Job(labels, recipe, out, recipe.fit.total_steps(samples))
