"""The runs behind the report of few bits, made or resumed; what each scores at few bits; and the files."""

from dataclasses import replace
from pathlib import Path

from skipless.data.scenes.write import write_single_objects
from skipless.errors import InputError
from skipless.experiments.quantisation import Options
from skipless.experiments.quantisation.recipe import QuantisationCell, quantisation_recipe
from skipless.experiments.quantisation.report import QuantisedCell, write_quantisation
from skipless.experiments.quantisation.scales import ROTATED
from skipless.recipes import LanguageRecipe, Recipe, open_model
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import read_run
from skipless.studies import QuantisationConfig, QuantisationResult, quantisation_study
from skipless.studies.origin import Origin
from skipless.sweep import Job, run_jobs

MEASUREMENTS = 15
"""Measurements of a run's activations between its first step and its last."""


def reproduce_quantisation(options: Options, out: Path, *, command: str = "") -> dict[str, Path]:
    """Scores at few bits, and kurtosis by block: run what is missing, go on with what was cut off, write the report.

    Args:
        options: which models, optimizers, precisions and seeds.
        out: folder of the report; the runs go into `out/runs`, what each scores into `out/studies`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: give at least 1")
    if not (options.rows and options.optimizers and options.precisions):
        raise InputError("--rows, --optimizers and --precisions: give at least one of each")
    per = "tensor" if options.static else "token"
    config = QuantisationConfig(precisions=options.precisions, static=options.static, activations_per=per)
    options = replace(options, data=_data(options, out))
    cells = [QuantisationCell(row, optimizer) for optimizer in options.optimizers for row in options.rows]
    first = _recipe(options, cells[0], 0)
    if isinstance(first, LanguageRecipe):  # the tokens that the run itself was scored on
        config = replace(config, held_out=first.held_out or None)
    planned = {(cell, seed): _recipe(options, cell, seed) for cell in cells for seed in range(options.seeds)}
    folders = {key: out / "runs" / f"{key[0].slug}-seed{key[1]}" for key in planned}
    _train(options, planned, folders)
    found = []
    for cell in cells:
        turned = replace(config, rotate="hadamard") if cell.row == ROTATED else config
        trained = [folders[cell, seed] for seed in range(options.seeds)]
        results = tuple(_study(folder, turned, out) for folder in trained)
        before = _study(trained[0], replace(turned, precisions=()), out, untrained=True)
        found.append(QuantisedCell(cell, tuple(read_run(folder) for folder in trained), results, before))
    return write_quantisation(found, out, first=first, command=command)


def _study(folder: Path, config: QuantisationConfig, out: Path, *, untrained: bool = False) -> QuantisationResult:
    """What a run scores at few bits; precisions that an earlier call has scored are read."""
    source = open_model(str(folder), untrained=untrained)
    state = "untrained" if untrained else None
    return quantisation_study(source, config, out=out / "studies" / folder.name, origin=Origin(state))


def _data(options: Options, out: Path) -> str | None:
    """Where the data is: given, or at scale scenes written into `out/data`."""
    if options.scale != "scenes" or options.data is not None:
        return options.data
    return write_single_objects((out / "data").resolve())


def _recipe(options: Options, cell: QuantisationCell, seed: int) -> Recipe:
    return quantisation_recipe(
        options.scale, cell, seed=seed, data=options.data, epochs=options.epochs, steps=options.steps
    )


def _train(
    options: Options,
    planned: dict[tuple[QuantisationCell, int], Recipe],
    folders: dict[tuple[QuantisationCell, int], Path],
) -> None:
    """Each model once: a rotated one is made of a model that is there."""
    jobs: dict[Path, Job] = {}
    samples = len(next(iter(planned.values())).load().train)
    for (cell, seed), recipe in planned.items():
        labels = (cell.row.removesuffix(", rotated"), OPTIMIZER_LABEL[cell.optimizer], f"seed {seed}")
        folder, steps = folders[cell, seed], recipe.fit.total_steps(samples)
        followed = recipe.with_(fit__measured=("activations",), fit__measure_every=max(1, steps // MEASUREMENTS))
        jobs.setdefault(folder, Job(labels, followed, folder, steps))
    run_jobs(list(jobs.values()), parallel=options.jobs)
