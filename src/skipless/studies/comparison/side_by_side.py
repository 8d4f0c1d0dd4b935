"""The page of one study of several models: their table, their curves in one picture, links to the page of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from skipless.display import Table
from skipless.report.labels import in_full, printed_difference
from skipless.report.pages.page import PAGE, Page, page_html
from skipless.report.write_files import write_files
from skipless.studies.comparison.asked import Comparison
from skipless.studies.origin import UNSAID
from skipless.studies.pages.curves import Curves
from skipless.studies.pages.study_page import files_there, setting
from skipless.studies.pages.text import StudyText, trust
from skipless.studies.study_folder import StudyFolder, rank_and_world_size
from skipless.training.run_folder.provenance import provenance

_BESIDE = "Here it is of several models on the same images, by the same settings."
_ONE = "Each model is of one seed: n = 1. Small differences mean nothing; other seeds say how much they vary."
_SAME = "All models are measured on the same images, by the same settings."
_LINKS = "The page of each model, which its name in the table leads to, has its scores of every block."


@dataclass(frozen=True)
class Best:
    """The best score of a model.

    Attributes:
        result: of its study.
        value: the score in per cent; None where every head diverged.
        at: where it was found, in words.
    """

    result: Any
    value: float | None
    at: str


@dataclass(frozen=True)
class SideBySide:
    """What is shown of several models.

    Attributes:
        text: what is said of the study.
        data: name of the data set, as the folders of the study have it.
        score: name of the score.
        bests: the best of each model, in their order.
        table: a row for each model.
        figures: pictures with a line for each model.
        unusable: images that were left out.
        select: images that learning rates were chosen on; empty where none was.
    """

    text: StudyText
    data: str
    score: str
    bests: Sequence[Best]
    table: Table
    figures: Sequence[Curves]
    unusable: int
    select: str = ""


def page_of(result: Any) -> Path | None:
    """The page of a study's result; None where nothing was written."""
    return None if result.folder is None else result.folder / PAGE


def write_side_by_side(comparison: Comparison, config: Any, shown: SideBySide) -> Path:
    """Write the folder and the page of several models, on rank 0 only.

    Args:
        comparison: what was asked for.
        config: settings of the study.
        shown: what came out.

    Returns:
        Path of the page.

    Raises:
        InputError: if it cannot be written.
    """
    names = [best.result.model for best in shown.bests]
    studies = [str(best.result.folder.name) for best in shown.bests]
    asked = {"study": comparison.study, "compared": studies}
    folder = StudyFolder(comparison.home, f"{comparison.study}-{shown.data}", asked, state="compared")
    table = replace(shown.table, notes=_differences(shown.bests))
    folder.finish(_record(comparison, shown), "\n".join([table.markdown(), "", *table.notes, table.caption]))
    where = f"{' and '.join(names)} on {shown.bests[0].result.data}"
    page = Page(
        title=f"{shown.text.title}: {where}",
        description=f"{shown.text.description} {_BESIDE}",
        ours="; ".join(
            [*(setting(one.title, "", one.state) for one in comparison.sources), shown.bests[0].result.data]
        ),
        paper=shown.text.paper,
        numbers=table.html(),
        figures={curves.title: drawn for curves in shown.figures if (drawn := curves.svg())},
        notes=[_ONE, *trust(shown.text, UNSAID, shown.unusable, shown.select)[1:], _SAME, _LINKS],
        made=provenance(next(comparison.sources[0].model.parameters()).device),
        command=comparison.command,
        settings={key: in_full(value) for key, value in asdict(config).items()},
        files=files_there(folder),
    )
    if rank_and_world_size()[0] == 0:
        write_files(folder.path, {PAGE: page_html(page)})
    return folder.path / PAGE


def _differences(bests: Sequence[Best]) -> list[str]:
    """By how many points the first model is above or below each other one."""
    first, *others = bests
    return [
        f"from {other.result.model}, to {first.result.model}: {printed_difference(first.value, other.value)} points, "
        "each at its best"
        for other in others
        if first.value is not None and other.value is not None
    ]


def _record(comparison: Comparison, shown: SideBySide) -> dict[str, Any]:
    """All numbers as plain values for JSON."""
    return {
        "study": comparison.study,
        "data": shown.bests[0].result.data,
        "score": shown.score,
        "models": [
            {"model": one.result.model, "folder": str(one.result.folder.name), "best": one.value, "at": one.at}
            for one in shown.bests
        ],
        "curves": {curves.title: {name: dict(by) for name, by in curves.scores.items()} for curves in shown.figures},
        "trivial": dict([curves.trivial for curves in shown.figures][:1]),
    }
