"""The runs behind the report: models, tuned rates, fine-tuning, and what each run scores at few bits; and the files."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from skipless.choices import slug
from skipless.data import load_images
from skipless.errors import InputError
from skipless.experiments.sine import SineOptions
from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.measured import FULL_BITS, asked_bits, measured
from skipless.experiments.sine.recipe import AdaptedRecipe, SineCell, adapted_recipe, base_recipe
from skipless.experiments.sine.report import write_sine
from skipless.optional import how_to_install, is_installed
from skipless.report.run_records import read_run
from skipless.report.write_files import drawing
from skipless.sweep import Call, Campaign, Job, run_jobs
from skipless.sweep.campaign import TUNING_SEED, steps_on

HOLDOUT = {"digits": 150, "fashion": 5000}  # training images that learning rates are tuned on
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
    campaign = Campaign(
        out,
        partial(_adapted, options),
        _named,
        steps_on(images),
        options.jobs,
        _PRELOAD,
    )
    held_out = partial(AdaptedRecipe.with_, data__holdout=HOLDOUT[options.scale])
    tuned = campaign.tune(cells, options.grid, held_out, all_may_diverge=True) if options.tune else {}
    folders = campaign.train(cells, options.seeds, tuned)
    _measure(options, folders)
    found = [SineRuns.read(cell, own, tuned.get(cell, {})) for cell, own in folders.items()]
    bases = [read_run(_base_folder(options, out, seed)) for seed in range(options.seeds)]
    first = _adapted(options, cells[0], 0)
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


def _adapted(options: SineOptions, cell: SineCell, seed: int) -> AdaptedRecipe:
    """A run of a seed. All runs lie two folders below the report's, and rates are tuned on the first seed's base."""
    base = f"../../base/{slug(options.row)}-seed{0 if seed == TUNING_SEED else seed}"
    return adapted_recipe(
        options.scale, cell, base=base, row=options.row, seed=seed, data=options.data, epochs=options.epochs
    )


def _train_bases(options: SineOptions, out: Path) -> None:
    """The models that are fine-tuned, one a seed, each of which all cells share."""
    recipes = [base_recipe(options.scale, options.row, seed=seed, data=options.data) for seed in range(options.seeds)]
    steps = recipes[0].fit.total_steps(len(recipes[0].load().train))
    jobs = [
        Job(("base", options.row, f"seed {seed}"), recipe, _base_folder(options, out, seed), steps)
        for seed, recipe in enumerate(recipes)
    ]
    run_jobs(jobs, parallel=options.jobs, preload=_PRELOAD)


def _named(cell: SineCell) -> tuple[str, str]:
    """The cell as messages have it."""
    return cell.line, f"rank {cell.rank}" if cell.rank else "no adapter"


def _measure(options: SineOptions, folders: Mapping[SineCell, Sequence[Path]]) -> None:
    """What each finished run scores at few bits, in processes of their own."""
    from skipless.experiments.sine.measure import measure_run

    calls = []
    for cell, own in folders.items():
        wanted = asked_bits(_adapted(options, cell, 0), options.bits)
        for seed, folder in enumerate(own):
            there = {one.bits for one in measured(folder)}
            if not read_run(folder).diverged and not there.issuperset(wanted):
                calls.append(Call((*_named(cell), f"seed {seed}", "bits"), measure_run, (folder, options.bits)))
    if calls:
        run_jobs(calls, parallel=options.jobs, preload=_PRELOAD)
