"""The files of both reports: tables, pictures, numbers and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skipless.display import Table
from skipless.experiments.family.runs import Asked, CellRuns
from skipless.experiments.family.tables import runs_table
from skipless.experiments.family.text import notes
from skipless.models.attention_config import AttentionConfig
from skipless.recipes.recipe import Recipe
from skipless.report.labels import FILE_KINDS
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report


@dataclass(frozen=True, eq=False)
class Shown:
    """What one report shows of its cells.

    Attributes:
        name: of its files, `attention`.
        title, description: of the page.
        tables: ours, then what the papers print.
        pictures: by the names of their files.
        captions: of the pictures.
        differences: what is otherwise than in the papers.
    """

    name: str
    title: str
    description: str
    tables: Sequence[Table]
    pictures: Mapping[str, bytes]
    captions: Mapping[str, str]
    differences: Sequence[str]


def write_family(
    shown: Shown,
    found: Sequence[CellRuns],
    out: Path,
    *,
    first: Recipe,
    images: int,
    asked: Asked,
    command: str,
) -> dict[str, Path]:
    """Write tables, pictures and page.

    Args:
        shown: what the report shows.
        found: the cells.
        out: folder of the report.
        first: recipe of one of the runs.
        images: that accuracies are on.
        asked: the report's options.
        command: what makes the report again.

    Returns:
        The path of each file by its name.
    """
    files: dict[str, object] = {
        f"{shown.name}.md": "\n\n".join(table.markdown() for table in shown.tables) + "\n",
        f"{shown.name}.json": json.dumps([_as_json(one) for one in found], indent=1),
        **shown.pictures,
    }
    epochs = first.fit.epochs // found[0].cell.length
    plain = replace(first.model, attention=AttentionConfig(), skip_gain=1.0)
    page = Page(
        title=f"{shown.title}, at scale {first.scale}",
        description=shown.description,
        ours=f"{plain.title}, {first.data.data}, {epochs} epochs",
        paper="the papers' own, in the last table",
        numbers="\n".join(table.html() for table in shown.tables),
        figures={shown.captions[name]: content for name, content in shown.pictures.items()},
        differences=shown.differences,
        notes=notes(images, found, tuned=asked.tune, grid=asked.grid),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        runs=runs_table(found).html(),
        trained=[run for one in found for run in one.runs],
    )
    return write_report(out, shown.name, files, page)


def _as_json(one: CellRuns) -> Mapping[str, Any]:
    return {
        **one.cell._asdict(),
        "learning_rate": one.runs[0].learning_rate,
        "seeds": [run.seed for run in one.runs],
        "top1": [run.top1 for run in one.runs],
        "final_loss": [run.final_loss for run in one.runs],
        "steps": [run.steps for run in one.runs],
        "top1_by_epoch": one.curves,
        **one.tokens,
    }
