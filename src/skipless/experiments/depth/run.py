"""The runs behind the depth report, made or resumed; what becomes of their tokens; and the files."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from skipless.conditioning.measurement.tracking import first_images
from skipless.data import load_images
from skipless.data.scenes.write import write_single_objects
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.experiments.depth import Options
from skipless.experiments.depth.recipe import GRID, DepthCell, depth_recipe
from skipless.experiments.depth.report import DepthRuns, write_depth
from skipless.recipes import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import read_run
from skipless.studies.token_history import token_history
from skipless.sweep import Campaign
from skipless.sweep.campaign import steps_on

HOLDOUT = {"digits": 200, "fashion": 5000, "scenes": 1000}  # training images that learning rates are tuned on
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
    campaign = Campaign(
        out,
        partial(_recipe, options),
        lambda cell: (cell.row, counted(cell.depth, "block"), OPTIMIZER_LABEL[cell.optimizer]),
        steps_on(images),
        options.jobs,
    )
    held_out = partial(Recipe.with_, data__holdout=HOLDOUT[options.scale])
    tuned = campaign.tune(cells, GRID, held_out) if options.tune else {}
    folders = campaign.train(cells, options.seeds, tuned)
    batch = first_images(images, min(_IMAGES, len(images.val)))
    found = [
        DepthRuns(
            cell,
            tuple(read_run(folder) for folder in own),
            **token_history(own[0], batch),
        )
        for cell, own in folders.items()
    ]
    first = _recipe(options, cells[0], 0)
    return write_depth(found, out, first=first, images=len(images.val), tuned=options.tune, command=command)


def _data(options: Options, out: Path) -> str | None:
    """Where the data is: given, or at scale scenes written into `out/data`."""
    if options.scale != "scenes" or options.data is not None:
        return options.data
    return write_single_objects((out / "data").resolve())


def _recipe(options: Options, cell: DepthCell, seed: int) -> Recipe:
    return depth_recipe(options.scale, cell, seed=seed, data=options.data, epochs=options.epochs)
