"""Table 1 and Figure 1: the runs behind them, made or resumed, and their report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from skipless.choices import PAPER_OPTIMIZERS, ROWS, OptimizerName
from skipless.data import load_images
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.experiments.supervised.cells import table1_cells
from skipless.experiments.supervised.recipe import CELLS, Scale, table1
from skipless.experiments.supervised.report import write_report
from skipless.experiments.supervised.text import description, notes
from skipless.experiments.supervised.tuning import job_of, tuned_rates
from skipless.recipes.command import training_command
from skipless.recipes.read import refuse_other_recipe
from skipless.recipes.recipe import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import Setting, read_run
from skipless.sweep import run_jobs


def reproduce_table1(
    scale: Scale,
    out: Path,
    *,
    seeds: int = 1,
    data: str | None = None,
    jobs: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
    optimizers: Sequence[OptimizerName] = PAPER_OPTIMIZERS,
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
        optimizers: the paper's two, or also Muon.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: give at least 1")
    if not optimizers:
        raise InputError("--optimizers: give at least one")
    first = table1(scale, data=data).with_(fit__epochs=epochs)
    images = load_images(first.data)
    chosen = [cell for cell in CELLS if cell.optimizer in optimizers and (cell.row in ROWS or scale != "paper")]
    rates = tuned_rates(scale, out, images, cells=chosen, data=data, jobs=jobs, epochs=epochs) if tune else {}
    planned = {
        (cell, seed): table1(scale, cell.row, cell.optimizer, seed=seed, data=data).with_(
            fit__epochs=epochs, optimizer__lr=rates.get(cell)
        )
        for cell in chosen
        for seed in range(seeds)
    }
    folders = {key: out / "runs" / f"{key[0].slug}-seed{key[1]}" for key in planned}
    if scale == "paper":
        _require_finished({folders[key]: recipe for key, recipe in planned.items()})
    else:
        made = [job_of(key[0], f"seed {key[1]}", recipe, folders[key], images) for key, recipe in planned.items()]
        run_jobs(made, parallel=jobs)
    runs = {cell: [read_run(folders[cell, seed]) for seed in range(seeds)] for cell in chosen}
    cells = table1_cells({(cell.row, OPTIMIZER_LABEL[cell.optimizer]): found for cell, found in runs.items()})
    return write_report(
        cells,
        out,
        setting=Setting(first.model.title, first.data.data, first.fit.epochs, len(images.classes)),
        title=f"Table 1 at scale {scale}",
        description=description(optimizers),
        command=command,
        notes=notes(first, cells, len(images.val), as_tuned=tune or (data is None and epochs is None), tuned=tune),
    )


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
        length = counted(first.fit.epochs, "epoch")
        head = f"{len(commands)} runs of {first.model.title}, {length}, are not finished; run each of"
        raise InputError("\n  ".join([head, *commands]))
