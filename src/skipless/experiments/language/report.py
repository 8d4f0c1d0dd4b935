"""The files of Table 7: tables, pictures and the page."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from skipless.choices import OptimizerName
from skipless.display import Table
from skipless.errors import InputError
from skipless.evaluators.language import TextFloors
from skipless.evaluators.language.zero_shot.scores import TaskScores, with_error
from skipless.evaluators.language.zero_shot.tasks import ZERO_SHOT_TASKS
from skipless.experiments.language.paper import BOOLQ_MAJORITY, PAPER_SETTING, PAPER_TABLE7, QUESTIONS
from skipless.experiments.language.recipe import LanguageCell
from skipless.experiments.language.text import DESCRIPTION, TITLE, differences, notes
from skipless.recipes.language import LanguageRecipe
from skipless.report.labels import FILE_KINDS, OPTIMIZER_LABEL, duration, rate
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.run_records import Run, read_lines
from skipless.report.write_files import drawing

_WHEN = ("untrained", "trained")


@dataclass(frozen=True, eq=False)
class LanguageRuns:
    """One cell: its runs, one a seed.

    Attributes:
        cell: model and optimizer.
        runs: one a seed.
        tokens: what becomes of tokens in the first of them, as `token_history` gives it.
        scores: zero-shot accuracies of the first of them; None where none were asked for.

    Raises:
        InputError: if the runs have several learning rates.
    """

    cell: LanguageCell
    runs: tuple[Run, ...]
    tokens: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scores: TaskScores | None = None

    def __post_init__(self) -> None:
        """Refuse runs of several learning rates as one cell."""
        rates = {run.learning_rate for run in self.runs}
        if len(rates) > 1:
            given = ", ".join(f"{run.folder} has {run.learning_rate:g}" for run in self.runs)
            raise InputError(f"the runs of {', '.join(self.cell)} have {len(rates)} learning rates ({given}); give one")

    @property
    def losses(self) -> tuple[float, ...]:
        """Held-out loss of every run that was finished, in nats a token."""
        return tuple(run.held_out_loss for run in self.runs if run.held_out_loss is not None)

    @property
    def bits(self) -> tuple[float, ...]:
        """Bits per byte of every run that was finished."""
        return tuple(run.bits_per_byte for run in self.runs if run.bits_per_byte is not None)

    def held_out(self) -> list[tuple[int, float]]:
        """Step and held-out loss of every evaluation of the first run."""
        lines = read_lines(self.runs[0].folder / "metrics.jsonl")
        return [(int(line["step"]), float(line["evaluation"]["loss"])) for line in lines if "evaluation" in line]


def loss_table(found: Sequence[LanguageRuns], floors: TextFloors) -> Table:
    """Bits per byte and nats a token: a row for each model, two columns for each optimizer, and the floors."""
    optimizers = _optimizers(found)
    lines: dict[str, dict[OptimizerName, LanguageRuns]] = {}
    for one in found:
        lines.setdefault(one.cell.row, {})[one.cell.optimizer] = one
    rows = [(row, *(value for name in optimizers for value in _values(by.get(name)))) for row, by in lines.items()]
    stuck = [
        f"! {one.cell.row}, {OPTIMIZER_LABEL[one.cell.optimizer]}: no better than the frequencies of tokens"
        for one in found
        if one.losses and statistics.fmean(one.losses) >= 0.99 * floors.entropy
    ]
    for name, bits, nats in (
        ("bigram", floors.bigram_bits, floors.bigram),
        ("unigram", floors.unigram_bits, floors.unigram),
    ):
        rows.append((f"counts: {name}", *(text for _ in optimizers for text in (f"{bits:.3f}", f"{nats:.3f}"))))
    heads = (unit for name in optimizers for unit in (f"{OPTIMIZER_LABEL[name]}, bits per byte", "nats a token"))
    caption = (
        f"Held-out text, {floors.tokens:,} tokens, mean ± sample standard deviation over the seeds; the learning rate "
        "in brackets. Lower is better."
    )
    return Table(("model", *heads), rows, caption, stuck, align="l" + "rr" * len(optimizers))


def gap_table(found: Sequence[LanguageRuns]) -> Table | None:
    """How far each model without skips is behind the one with them, in nats a token; None where it is not there."""
    optimizers = _optimizers(found)
    by = {(one.cell.row, one.cell.optimizer): one for one in found if one.losses}
    rows = []
    for row in dict.fromkeys(one.cell.row for one in found if one.cell.row != "skip"):
        gaps = [_gap(by.get((row, name)), by.get(("skip", name))) for name in optimizers]
        if any(gaps):
            rows.append((row, *(gap or "–" for gap in gaps)))
    if not rows:
        return None
    caption = "Held-out loss behind the model with skips, nats a token: difference of means ± its standard error."
    return Table(("model", *(OPTIMIZER_LABEL[name] for name in optimizers)), rows, caption)


def token_table(found: Sequence[LanguageRuns]) -> Table | None:
    """Attention diagonal and token cosine before and after training; None where nothing was measured."""
    rows = []
    for one in found:
        if one.tokens:
            values = (one.tokens.get(f"{what}_{when}", ()) for what in ("diagonal", "cosine") for when in _WHEN)
            texts = (_ends(each, mean=place < 2) for place, each in enumerate(values))
            rows.append((one.cell.row, OPTIMIZER_LABEL[one.cell.optimizer], *texts))
    heads = ("model", "optimizer", "diagonal before training", "after", "cosine before training", "after")
    caption = (
        "Mean attention weight of a token on itself, mean over blocks, and mean cosine between the tokens of a window "
        "after the last block; seed 0, held-out text."
    )
    return Table(heads, rows, caption, align="llrrrr") if rows else None


def score_table(found: Sequence[LanguageRuns]) -> Table | None:
    """Zero-shot accuracies of the first seeds, in percent; None where none were asked for."""
    scored = [(one.cell, one.scores) for one in found if one.scores is not None]
    if not scored:
        return None
    first = scored[0][1]
    tasks = [score.task for score in first.scores]
    rows = []
    for cell, scores in scored:
        values = [with_error(scores[task].accuracy, scores[task].error) for task in tasks]
        rows.append((f"{cell.row}, {OPTIMIZER_LABEL[cell.optimizer]}", *values, f"{scores.mean:.1f}"))
    rows.append(_task_row("the most frequent answer", [first[task].majority for task in tasks]))
    rows.append(_task_row("a guess", [first[task].chance for task in tasks]))
    rows.append(("questions", *(f"{first[task].n}" for task in tasks), ""))
    heads = ("model", *(first[task].title for task in tasks), "average")
    caption = "Zero-shot accuracies of the first seeds in percent, ± standard error over questions."
    return Table(heads, rows, caption, first.notes())


def paper_table() -> Table:
    """Table 7 of the paper beside what a guess and the most frequent answer reach."""
    heads = ("model", *(task.title for task in ZERO_SHOT_TASKS.values()), "average")
    rows = [
        _task_row(f"paper: {row}", [values[name] for name in ZERO_SHOT_TASKS]) for row, values in PAPER_TABLE7.items()
    ]
    majorities = (f"{BOOLQ_MAJORITY:.1f}" if name == "boolq" else "–" for name in ZERO_SHOT_TASKS)
    rows.append(("the most frequent answer", *majorities, ""))
    rows.append(_task_row("a guess", [task.chance for task in ZERO_SHOT_TASKS.values()]))
    errors = (100 * (0.25 / QUESTIONS[name]) ** 0.5 for name in ZERO_SHOT_TASKS)
    rows.append(("standard error, at most", *(f"{error:.1f}" for error in errors), ""))
    caption = f"The paper's zero-shot accuracies in percent, one run each. {PAPER_SETTING}."
    return Table(heads, rows, caption, align="l" + "r" * (len(ZERO_SHOT_TASKS) + 1))


def runs_table(found: Sequence[LanguageRuns]) -> Table:
    """Every run."""
    rows = []
    for one in found:
        for run in one.runs:
            held = [
                f"{value:.4f}" if value is not None else "diverged" for value in (run.bits_per_byte, run.held_out_loss)
            ]
            loss = "–" if run.final_loss is None else f"{run.final_loss:.4f}"
            numbers = (str(run.seed), rate(run.learning_rate), *held, loss, f"{run.steps:,}", duration(run.seconds))
            rows.append((one.cell.row, OPTIMIZER_LABEL[one.cell.optimizer], *numbers))
    heads = (
        "model",
        "optimizer",
        "seed",
        "learning rate",
        "bits per byte",
        "held-out loss",
        "training loss",
        "steps",
        "time",
    )
    caption = "Training loss: mean over the last tenth of the run, nats a token."
    return Table(heads, rows, caption, align="llrrrrrrr")


def write_table7(
    found: Sequence[LanguageRuns],
    out: Path,
    *,
    first: LanguageRecipe,
    floors: TextFloors,
    tuned: bool,
    command: str,
) -> dict[str, Path]:
    """Write tables, pictures and page.

    Args:
        found: the cells.
        out: folder of the report.
        first: recipe of one of the runs.
        floors: what counting tokens reaches on the same text.
        tuned: whether rates were tuned for these runs.
        command: what makes the report again.

    Returns:
        The path of each file by its name.
    """
    figures = drawing("skipless.experiments.language.figures")
    made = (loss_table(found, floors), gap_table(found), token_table(found), score_table(found), paper_table())
    tables = [table for table in made if table is not None]
    pictures = {
        "table7-loss.png": figures.loss_png(found, floors),
        "table7-tokens.png": figures.tokens_png(found),
    }
    files: dict[str, object] = {
        "table7.md": "\n\n".join(table.markdown() for table in tables) + "\n",
        "table7.json": json.dumps({"floors": _floors(floors), "cells": [_as_json(one) for one in found]}, indent=1),
        **pictures,
    }
    tokens = first.fit.batch_size * first.data.context
    page = Page(
        title=f"{TITLE}, at scale {first.scale}",
        description=DESCRIPTION,
        ours=f"{first.data.data}, {first.fit.steps:,} steps of {tokens:,} tokens",
        paper=PAPER_SETTING,
        numbers="\n".join(table.html() for table in tables),
        figures={figures.CAPTIONS[name]: content for name, content in pictures.items()},
        differences=differences(first),
        notes=notes(
            [len(one.losses) for one in found],
            tuned=tuned,
            paper=first.scale == "paper",
            counted=floors.train_tokens,
        ),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        runs=runs_table(found).html(),
        trained=[run for one in found for run in one.runs],
    )
    return write_report(out, "table7", files, page)


def _ends(values: Sequence[float], *, mean: bool) -> str:
    """A cell of `token_table`: the mean over blocks, or the last block's."""
    if not values:
        return "–"
    return f"{statistics.fmean(values):.2f}" if mean else f"{values[-1]:.2f}"


def _optimizers(found: Iterable[LanguageRuns]) -> tuple[OptimizerName, ...]:
    return tuple(dict.fromkeys(one.cell.optimizer for one in found))


def _values(one: LanguageRuns | None) -> tuple[str, str]:
    """The two cells of a model and an optimizer."""
    if one is None:
        return "not run", ""
    if not one.losses:
        return "diverged", f"({rate(one.runs[0].learning_rate)})"
    failed = len(one.runs) - len(one.losses)
    remark = f", {failed} diverged" if failed else ""
    return _mean(one.bits), f"{_mean(one.losses)} (n {len(one.losses)}, {rate(one.runs[0].learning_rate)}{remark})"


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _gap(one: LanguageRuns | None, skip: LanguageRuns | None) -> str:
    if one is None or skip is None:
        return ""
    error = ""
    if len(one.losses) > 1 and len(skip.losses) > 1:
        error = f" ± {sum(statistics.variance(each.losses) / len(each.losses) for each in (one, skip)) ** 0.5:.3f}"
    return f"{statistics.fmean(one.losses) - statistics.fmean(skip.losses):+.3f}{error}"


def _task_row(name: str, values: Sequence[float]) -> tuple[str, ...]:
    return (name, *(f"{value:.1f}" for value in values), f"{statistics.fmean(values):.1f}")


def _floors(floors: TextFloors) -> Mapping[str, float]:
    return {name: getattr(floors, name) for name in ("entropy", "unigram", "bigram", "unigram_bits", "bigram_bits")}


def _as_json(one: LanguageRuns) -> Mapping[str, object]:
    return {
        "row": one.cell.row,
        "optimizer": one.cell.optimizer,
        "learning_rate": one.runs[0].learning_rate,
        "bits_per_byte": [run.bits_per_byte for run in one.runs],
        "held_out_loss": [run.held_out_loss for run in one.runs],
        "final_loss": [run.final_loss for run in one.runs],
        "held_out_through_training": one.held_out(),
        "tokens": one.tokens,
        "zero_shot": {} if one.scores is None else {score.task: asdict(score) for score in one.scores.scores},
    }
