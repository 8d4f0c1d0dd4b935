"""The files of the report: tables, pictures, numbers and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipless.experiments.sine import SineOptions, tables
from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.recipe import AdaptedRecipe
from skipless.experiments.sine.text import DESCRIPTION, TITLE, differences, notes
from skipless.report.labels import FILE_KINDS
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.run_records import Run
from skipless.report.write_files import drawing


def write_sine(
    found: Sequence[SineRuns],
    bases: Sequence[Run],
    out: Path,
    *,
    first: AdaptedRecipe,
    images: int,
    asked: SineOptions,
    command: str,
) -> dict[str, Path]:
    """Write tables, pictures and page.

    Args:
        found: the cells.
        bases: runs of the models that were fine-tuned, one a seed.
        out: folder of the report.
        first: recipe of one of the runs.
        images: that accuracies are on.
        asked: the report's options.
        command: what makes the report again.

    Returns:
        The path of each file by its name.
    """
    figures = drawing("skipless.experiments.sine.figures")
    pictures = {
        "sine-accuracy.png": figures.accuracy_png(found),
        "sine-bytes.png": figures.bytes_png(found),
        "sine-ranks.png": figures.ranks_png(found),
        "sine-loss.png": figures.loss_png(found),
    }
    shown = (
        tables.accuracy_table(found),
        tables.gains_table(found, asked.bits),
        tables.bits_table(found, asked.bits),
        tables.size_table(found, asked.bits),
        tables.rank_table(found, asked.bits),
        tables.rates_table(found),
        tables.paper_table(),
    )
    files: dict[str, object] = {
        "sine.md": "\n\n".join(table.markdown() for table in shown) + "\n",
        "sine.json": json.dumps({"base": _bases(bases), "cells": [_as_json(one) for one in found]}, indent=1),
        **pictures,
    }
    classes = first.data.classes or ()
    page = Page(
        title=f"{TITLE}, at scale {first.scale}",
        description=DESCRIPTION,
        ours=f"{asked.row}: {first.model.title}, {first.data.data}, {', '.join(classes)}, {first.fit.epochs} epochs",
        paper="the papers' own, in the last table",
        numbers="\n".join(table.html() for table in shown),
        figures={figures.CAPTIONS[name]: content for name, content in pictures.items()},
        differences=differences(),
        notes=notes(images, found, tuned=asked.tune, grid=asked.grid),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        runs=tables.runs_table(found, bases).html(),
        trained=[*bases, *(run for one in found for run in one.runs)],
    )
    return write_report(out, "sine", files, page)


def _bases(bases: Sequence[Run]) -> list[Mapping[str, Any]]:
    return [{"seed": run.seed, "top1": run.top1, "steps": run.steps} for run in bases]


def _as_json(one: SineRuns) -> Mapping[str, Any]:
    return {
        **one.cell._asdict(),
        "learning_rate": one.runs[0].learning_rate,
        "tried": dict(one.tried),
        "seeds": [run.seed for run in one.runs],
        "top1": [run.top1 for run in one.runs],
        "final_loss": [run.final_loss for run in one.runs],
        "steps": [run.steps for run in one.runs],
        "at_bits": [[asdict(at) for at in by_bits.values()] for by_bits in one.at],
    }
