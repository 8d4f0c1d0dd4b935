"""The runs behind the report: models, tuned rates, fine-tuning, and what each run scores at few bits; and the files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from skipless.choices import slug
from skipless.data import ImageData, load_images
from skipless.errors import InputError
from skipless.experiments.sine import SineOptions
from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.measured import FULL_BITS, asked_bits, measured
from skipless.experiments.sine.recipe import AdaptedRecipe, SineCell, adapted_recipe, base_recipe
from skipless.experiments.sine.report import write_sine
from skipless.optional import how_to_install, is_installed
from skipless.recipes.recipe import Recipe
from skipless.report.run_records import read_run
from skipless.report.write_files import drawing, write_files
from skipless.sweep import Call, Job, run_jobs
from skipless.sweep.rates import Scores, best_rate, jobs_by_rate, tune_learning_rates

HOLDOUT = {"digits": 150, "fashion": 5000}  # training images that learning rates are tuned on
TUNING_SEED = 1000  # head, A and order of the tuning runs, not those of any reported one
_PRELOAD = ("skipless.experiments.sine.adapted",)


def reproduce_sine(options: SineOptions, out: Path, *, command: str = "") -> dict[str, Path]:
    """Accuracy by method, rank and bits: run what is missing, go on with what was cut off, write the report.

    Args:
        options: which methods, ranks, bits, frequencies and seeds.
        out: folder of the report. Models go into `out/base`, fine-tuning into `out/runs` and `out/tuning`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: without PEFT; for options that make no sense, data that cannot be used, runs that fail, or folders
            that hold other runs.
    """
    if not is_installed("peft"):
        raise InputError(f"the report on adapters needs PEFT, the extra `adapters`: {how_to_install('peft')}")
    cells = planned_cells(options)
    drawing("skipless.experiments.sine.figures")
    images = load_images(_adapted(options, cells[0], 0).data)
    _train_bases(options, out)
    tuned = _tuned(cells, options, out, images) if options.tune else {}
    rates = {cell: best_rate(_named(cell), scores) for cell, scores in tuned.items() if _any(scores)}
    planned = {
        (cell, seed): _adapted(options, cell, seed).with_(optimizer__lr=rates.get(cell))
        for cell in cells
        for seed in range(options.seeds)
    }
    folders = {key: out / "runs" / f"{key[0].slug}-seed{key[1]}" for key in planned}
    jobs = [_job(cell, f"seed {seed}", planned[cell, seed], folders[cell, seed], images) for cell, seed in planned]
    run_jobs(jobs, parallel=options.jobs, preload=_PRELOAD)
    _measure(options, planned, folders)
    found = [
        SineRuns.read(cell, [folders[cell, seed] for seed in range(options.seeds)], tuned.get(cell, {}))
        for cell in cells
    ]
    bases = [read_run(_base_folder(options, out, seed)) for seed in range(options.seeds)]
    first = planned[cells[0], 0]
    return write_sine(found, bases, out, first=first, images=len(images.val), asked=options, command=command)


def planned_cells(options: SineOptions) -> list[SineCell]:
    """The report's cells: the head alone and all weights, then every method at each rank and frequency.

    Raises:
        InputError: for options that make no sense.

    Example:
        >>> options = SineOptions(methods=("lora", "sine"), ranks=(4, 1), frequencies=(200.0,))
        >>> [cell.slug for cell in planned_cells(options)]
        ['head', 'all-weights', 'lora-r1', 'lora-r4', 'sine-w200-r1', 'sine-w200-r4']
    """
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: give at least 1")
    if not (options.methods and options.ranks and options.frequencies):
        raise InputError("--methods, --ranks and --frequencies: give at least one of each")
    if options.tune and not (options.grid and all(factor > 0 for factor in options.grid)):
        raise InputError(f"--grid {' '.join(f'{factor:g}' for factor in options.grid)}: give factors above 0")
    if wrong := [bits for bits in options.bits if bits != FULL_BITS and not 1 <= bits <= 8]:
        raise InputError(f"--bits {wrong[0]}: give 1 to 8, or 32 for an adapter as it was trained")
    cells = [SineCell("head"), SineCell("all weights")]
    for method in dict.fromkeys(options.methods):
        has_frequency = method in ("sine", "lora, alpha'")
        for frequency in sorted(set(options.frequencies)) if has_frequency else (0.0,):
            cells += [SineCell(method, rank, frequency) for rank in sorted(set(options.ranks))]
    for cell in cells:
        _adapted(options, cell, 0)  # refuses what is no rank, no frequency and no method
    return cells


def _base_folder(options: SineOptions, out: Path, seed: int) -> Path:
    return out / "base" / f"{slug(options.row)}-seed{seed}"


def _adapted(options: SineOptions, cell: SineCell, seed: int, *, of: int | None = None) -> AdaptedRecipe:
    """A run of a seed, of the base of that seed or another one; all runs lie two folders below the report's."""
    base = f"../../base/{slug(options.row)}-seed{seed if of is None else of}"
    return adapted_recipe(
        options.scale, cell, base=base, row=options.row, seed=seed, data=options.data, epochs=options.epochs
    )


def _train_bases(options: SineOptions, out: Path) -> None:
    """The models that are fine-tuned, one a seed, each of which all cells share."""
    jobs = []
    for seed in range(options.seeds):
        recipe = base_recipe(options.scale, options.row, seed=seed, data=options.data)
        steps = recipe.fit.total_steps(len(recipe.load().train))
        jobs.append(Job(("base", options.row, f"seed {seed}"), recipe, _base_folder(options, out, seed), steps))
    run_jobs(jobs, parallel=options.jobs, preload=_PRELOAD)


def _tuned(cells: Sequence[SineCell], options: SineOptions, out: Path, images: ImageData) -> dict[SineCell, Scores]:
    """Accuracy at each rate of every cell's grid, on images held out of training; of the first seed's base."""
    made = {}
    for cell in cells:
        base = _adapted(options, cell, TUNING_SEED, of=0).with_(data__holdout=HOLDOUT[options.scale])
        made[_named(cell)] = jobs_by_rate(base, options.grid, partial(_tuning_job, cell, out, images))
    reached = tune_learning_rates(made, jobs=options.jobs, all_may_diverge=True, preload=_PRELOAD)
    tuned = {cell: reached[_named(cell)] for cell in cells}
    write_files(out, {"tuning.json": [{"cell": cell.slug, "top1": scores} for cell, scores in tuned.items()]})
    return tuned


def _any(scores: Scores) -> bool:
    return any(top1 is not None for top1 in scores.values())


def _named(cell: SineCell) -> tuple[str, str]:
    """The cell as messages have it."""
    return cell.line, f"rank {cell.rank}" if cell.rank else "no adapter"


def _tuning_job(cell: SineCell, out: Path, images: ImageData, recipe: AdaptedRecipe) -> Job:
    rate = f"{recipe.optimizer.lr:g}"
    return _job(cell, f"lr {rate}", recipe, out / "tuning" / f"{cell.slug}-lr{rate}", images)


def _job(cell: SineCell, last: str, recipe: Recipe, out: Path, images: ImageData) -> Job:
    samples = len(images.train) - recipe.data.holdout
    return Job((*_named(cell), last), recipe, out, recipe.fit.total_steps(samples))


def _measure(
    options: SineOptions,
    planned: dict[tuple[SineCell, int], AdaptedRecipe],
    folders: dict[tuple[SineCell, int], Path],
) -> None:
    """What each finished run scores at few bits, in processes of their own."""
    from skipless.experiments.sine.measure import measure_run

    calls = []
    for (cell, seed), recipe in planned.items():
        folder = folders[cell, seed]
        there = {one.bits for one in measured(folder)}
        if not read_run(folder).diverged and not there.issuperset(asked_bits(recipe, options.bits)):
            calls.append(Call((*_named(cell), f"seed {seed}", "bits"), measure_run, (folder, options.bits)))
    if calls:
        run_jobs(calls, parallel=options.jobs, preload=_PRELOAD)
