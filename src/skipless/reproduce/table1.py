"""Table 1 and Figure 1: the runs behind them, their learning rates, and what the report says of them."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from skipless.data import ImageData, load_images
from skipless.errors import InputError
from skipless.recipes import Recipe, table1
from skipless.recipes.read import refuse_other_recipe
from skipless.recipes.table1 import CELLS, GRID, Cell, Scale
from skipless.report import OptimizerName, Setting, read_run, table1_cells, write_report
from skipless.sweep import Job, run_jobs

OPTIMIZER_LABEL: dict[str, OptimizerName] = {"adamw": "AdamW", "soap": "SOAP"}
HOLDOUT = {"digits": 200, "fashion": 5000}  # training images that learning rates are tuned on
TUNING_SEED = 1000  # weights and order of the tuning runs, not those of any reported one


def reproduce_table1(
    scale: Scale,
    out: Path,
    *,
    seeds: int = 1,
    data: str | None = None,
    jobs: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Table 1 and Figure 1 at one scale: run what is missing, go on with what was cut off, write the report.

    Args:
        scale: `digits` or `fashion`; `paper` reads finished runs and otherwise says what to run.
        out: folder of the report; the runs go into `out/runs`.
        seeds: runs a cell, with seeds 0, 1, ...
        data: another place for the data.
        jobs: runs at a time.
        tune: choose every cell's learning rate anew, on images held out of training; the grid goes to `tuning.json`.
        epochs: another length.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: give at least 1")
    first = table1(scale, data=data).with_(fit__epochs=epochs)
    images = load_images(first.data)
    rates = tuned_rates(scale, out, images, data=data, jobs=jobs, epochs=epochs) if tune else {}
    planned = {
        (cell, seed): table1(scale, cell.row, cell.optimizer, seed=seed, data=data).with_(
            fit__epochs=epochs, optimizer__lr=rates.get(cell)
        )
        for cell in CELLS
        for seed in range(seeds)
    }
    folders = {key: out / "runs" / f"{slug(key[0])}-seed{key[1]}" for key in planned}
    if scale == "paper":
        _require_finished({folders[key]: recipe for key, recipe in planned.items()})
    else:
        made = [_job(key[0], f"seed {key[1]}", recipe, folders[key], images) for key, recipe in planned.items()]
        run_jobs(made, parallel=jobs)
    runs = {cell: [read_run(folders[cell, seed]) for seed in range(seeds)] for cell in CELLS}
    cells = table1_cells({(cell.row, OPTIMIZER_LABEL[cell.optimizer]): found for cell, found in runs.items()})
    return write_report(
        cells,
        out,
        setting=Setting(describe(first), first.data.data, first.fit.epochs, len(images.classes)),
        title=f"Table 1 at scale {scale}",
        description=_DESCRIPTION,
        command=command,
        notes=_notes(first, seeds, len(images.val), as_tuned=tune or (data is None and epochs is None)),
    )


def tuned_rates(
    scale: Scale,
    out: Path,
    images: ImageData,
    *,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
) -> dict[Cell, float]:
    """The best learning rate of every cell's grid, by accuracy on images held out of training.

    Raises:
        InputError: where nothing in a cell's grid trained, or a run failed.
    """
    if scale not in HOLDOUT:
        raise InputError(f"--tune holds images out of training at scales {', '.join(HOLDOUT)}, not at {scale!r}")
    made: dict[Cell, dict[float, Job]] = {}
    for cell in CELLS:
        base = table1(scale, cell.row, cell.optimizer, seed=TUNING_SEED, data=data)
        for rate in GRID[scale][cell]:
            recipe = base.with_(optimizer__lr=rate, data__holdout=HOLDOUT[scale], fit__epochs=epochs)
            folder = out / "tuning" / f"{slug(cell)}-lr{rate:g}"
            made.setdefault(cell, {})[rate] = _job(cell, f"lr {rate:g}", recipe, folder, images)
    run_jobs([job for grid in made.values() for job in grid.values()], parallel=jobs)
    reached = {
        cell: {rate: job.score if job.state == "done" else None for rate, job in grid.items()}
        for cell, grid in made.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    readable = [{"row": cell.row, "optimizer": cell.optimizer, "top1": grid} for cell, grid in reached.items()]
    (out / "tuning.json").write_text(json.dumps(readable, indent=2) + "\n", encoding="utf-8")
    best = {cell: best_rate(cell, grid) for cell, grid in reached.items()}
    for cell, rate in best.items():
        if rate in (min(GRID[scale][cell]), max(GRID[scale][cell])):
            print(f"note: {rate:g}, the best for {cell.row}, {cell.optimizer}, ends its grid", file=sys.stderr)
    return best


def best_rate(cell: Cell, grid: Mapping[float, float | None]) -> float:
    """The rate of the highest accuracy; None is a run that diverged.

    Raises:
        InputError: if all of them did.
    """
    finished = {rate: value for rate, value in grid.items() if value is not None}
    if not finished:
        raise InputError(f"{cell.row}, {cell.optimizer}: every learning rate of {list(grid)} diverged; extend GRID")
    return max(finished, key=finished.__getitem__)


def slug(cell: Cell) -> str:
    """A cell's name as part of a path.

    Example:
        >>> slug(Cell("skipless + init", "soap"))
        'skipless-init-soap'
    """
    return f"{cell.row.replace(' + ', '-')}-{cell.optimizer}"


def describe(recipe: Recipe) -> str:
    """The model in a few words."""
    sizes = recipe.model.kwargs
    if not sizes:
        return recipe.model.name
    return f"ViT of {sizes['depth']} blocks, width {sizes['embed_dim']}, patch {sizes['patch_size']}"


def _job(cell: Cell, last: str, recipe: Recipe, out: Path, images: ImageData) -> Job:
    samples = len(images.train) - recipe.data.holdout
    return Job((cell.row, OPTIMIZER_LABEL[cell.optimizer], last), recipe, out, recipe.fit.total_steps(samples))


def _require_finished(planned: Mapping[Path, Recipe]) -> None:
    """At the paper's scale six cells are weeks of GPU time: say what to run, do not start it here."""
    commands = []
    for folder, recipe in planned.items():
        if not (folder / "result.json").exists():
            commands.append(training_command(recipe, folder))
        else:
            refuse_other_recipe(folder, recipe)
    if commands:
        first = next(iter(planned.values()))
        head = f"{len(commands)} runs of {describe(first)}, {first.fit.epochs} epochs, are not finished; run each of"
        raise InputError("\n  ".join([head, *commands]))


def training_command(recipe: Recipe, out: Path) -> str:
    """The command that makes one run of the scale `paper`, on the eight GPUs of its recipe."""
    words = ["torchrun", "--nproc-per-node", 8, "-m", "skipless", "train", "table1", "--scale", "paper"]
    words += ["--data", recipe.data.data, "--skip" if recipe.model.skip else "--no-skip"]
    words += ["--init" if recipe.model.init else "--no-init", "--optimizer", recipe.optimizer.name]
    words += ["--epochs", recipe.fit.epochs, "--seed", recipe.fit.seed, "--out", out]
    return shlex.join(map(str, words))


def _notes(recipe: Recipe, seeds: int, images: int, *, as_tuned: bool) -> list[str]:
    """What a reader must know to trust the numbers neither too much nor too little."""
    notes = [f"Accuracies are on {images} images that no run was trained on; the last epoch counts."]
    if recipe.scale == "paper":
        notes.append("Learning rates were not tuned here: 4e-3 for AdamW as in the recipe, 3e-3 for SOAP.")
    else:
        tuned = "" if as_tuned else "the recipe's own data and length, not for these: "
        notes.append(f"Learning rates were tuned for every cell on images held out of training; {tuned}see LOG.md.")
        notes.append("The paper's numbers are of ViT-B on ImageNet-1k: compare orders and gaps, not values.")
    if seeds == 1:
        notes.append("One seed a cell: differences of a point or two mean nothing; --seeds 3 gives spreads.")
    if recipe.fit.device == "cpu":
        notes.append("Every run had one thread: the numbers repeat exactly on one kind of machine.")
    return notes


_DESCRIPTION = (
    "Six runs of one vision transformer: with its skip connections, without them, and without them but started by the "
    "paper's initialisation, each trained by AdamW and by SOAP. The paper's claim is that the last of these trains as "
    "well as a residual model."
)
