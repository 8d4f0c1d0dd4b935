"""The runs behind Table 7, made or resumed; what becomes of their tokens; and the files."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from skipless.data.text import TextData, load_text
from skipless.errors import InputError
from skipless.evaluators.language import text_floors
from skipless.evaluators.language.held_out import document_range
from skipless.evaluators.language.zero_shot.score_tasks import check_tasks
from skipless.evaluators.language.zero_shot.scores import TaskScores
from skipless.experiments.language import Options
from skipless.experiments.language.recipe import LanguageCell, table7_recipe
from skipless.experiments.language.report import LanguageRuns, write_table7
from skipless.options import refuse_given
from skipless.recipes.command import training_command
from skipless.recipes.language import LanguageRecipe, held_out_windows
from skipless.recipes.read import read_recipe, refuse_other_recipe
from skipless.recipes.source import open_model
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import read_run
from skipless.studies import ZeroShotConfig, zero_shot
from skipless.studies.token_history import token_history
from skipless.sweep import Campaign

GRID = (1 / 3, 1.0, 3.0)  # what `--tune` tries, times the rate of the cell
_WINDOWS = 16


def reproduce_table7(options: Options, out: Path, *, command: str = "") -> dict[str, Path]:
    """Table 7 at one scale: run what is missing, go on with what was cut off, write the report.

    Args:
        options: which models, optimizers and seeds.
        out: folder of the report; the runs go into `out/runs`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for text that cannot be used, runs that fail, or folders that hold other runs; at scale `paper`, for
            runs that are missing, with the commands that make them.
    """
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: give at least 1")
    if not (options.rows and options.optimizers):
        raise InputError("--rows and --optimizers: give at least one of each")
    if options.tune and options.scale == "paper":
        raise InputError("--tune trains here, and the models of scale 'paper' are for GPUs: it is for scale 'tiny'")
    if options.tasks:
        check_tasks(options.tasks, options.data_dir)  # before anything is trained
    else:
        refuse_given("table7 without --tasks", data_dir=options.data_dir)
    cells = [LanguageCell(row, optimizer) for optimizer in options.optimizers for row in options.rows]
    campaign = Campaign(
        out,
        partial(_recipe, options),
        lambda cell: (cell.row, OPTIMIZER_LABEL[cell.optimizer]),
        lambda recipe: recipe.fit.total_steps((text.train.tokens - 1) // recipe.data.context),
        options.jobs,
    )
    folders = {cell: campaign.folders(cell, options.seeds) for cell in cells}
    first = _recipe(options, cells[0], 0)
    if options.scale == "paper":
        _require_finished(options, folders)
    text = load_text(first.data)
    if options.scale != "paper":
        tuned = campaign.tune(cells, GRID, partial(_on_other_text, text)) if options.tune else {}
        campaign.train(cells, options.seeds, tuned)
    batch = _windows(text, first)
    scores = _zero_shot(options, {cell: own[0] for cell, own in folders.items()}) if options.tasks else {}
    found = [
        LanguageRuns(
            cell,
            tuple(read_run(folder) for folder in own),
            tokens=token_history(own[0], batch),
            scores=scores.get(cell),
        )
        for cell, own in folders.items()
    ]
    floors = text_floors(text.train, text.val, vocabulary=text.vocabulary, held_out=first.held_out or None)
    return write_table7(found, out, first=first, floors=floors, tuned=options.tune, command=command)


def _windows(text: TextData, recipe: LanguageRecipe) -> Int64[Tensor, "b t"]:
    """The first windows of the held-out text, whose tokens are measured."""
    context = min(recipe.data.context, text.val.tokens)
    return held_out_windows(text, min(_WINDOWS, text.val.tokens // context), context)


def _zero_shot(options: Options, folders: Mapping[LanguageCell, Path]) -> dict[LanguageCell, TaskScores]:
    """Zero-shot accuracies of the first run of every cell that did not diverge; what is done is kept beside the run."""
    found = {}
    for cell, folder in folders.items():
        if not read_run(folder).diverged:
            source = open_model(str(folder))
            config = ZeroShotConfig(tasks=options.tasks)
            found[cell] = zero_shot(source, config, data_dir=options.data_dir, out=folder).scores
    return found


def _recipe(options: Options, cell: LanguageCell, seed: int) -> LanguageRecipe:
    return table7_recipe(
        options.scale, cell, seed=seed, data=options.data, tokenizer=options.tokenizer, steps=options.steps
    )


def _on_other_text(text: TextData, recipe: LanguageRecipe) -> LanguageRecipe:
    """A recipe that is scored on held-out text behind that of the table; refused where the table takes all of it."""
    try:
        document_range(text.val, recipe.held_out, recipe.held_out)
    except InputError as error:
        raise InputError(
            f"--tune needs held-out text that the table does not take, and there is none: {error}"
        ) from error
    return recipe.with_(held_out_after=recipe.held_out)


def _require_finished(options: Options, folders: Mapping[LanguageCell, Sequence[Path]]) -> None:
    """At the paper's scale a run is GPU hours: say what to run, do not start it here."""
    commands = []
    for cell, own in folders.items():
        for seed, folder in enumerate(own):
            recipe = _recipe(options, cell, seed)
            if (folder / "result.json").exists():
                tuned_by_hand = recipe.with_(optimizer__lr=read_recipe(folder).optimizer.lr)
                refuse_other_recipe(folder, tuned_by_hand)
                continue
            if recipe.data.tokenizer is None and not (Path(recipe.data.data) / "text.json").is_file():
                raise InputError(
                    "table7 at scale 'paper' needs --tokenizer: the tokenizer.json of a model of 32,000 ids"
                )
            more = [] if recipe.data.tokenizer is None else ["--tokenizer", recipe.data.tokenizer]
            commands.append(training_command(recipe, folder, "--reading", cell.reading, *more))
    if commands:
        head = f"{len(commands)} language models of 109.5 M parameters are not finished; run each of"
        raise InputError("\n  ".join([head, *commands]))
