"""The page of a study, beside its `result.json` and `table.md`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from skipless.choices import ModelState
from skipless.display import Record
from skipless.display.drawing import inline_svg
from skipless.report.labels import in_full
from skipless.report.pages.markdown import markdown_html
from skipless.report.pages.page import PAGE, Page, page_html
from skipless.report.write_files import write_files
from skipless.studies.origin import Origin
from skipless.studies.pages.text import StudyText
from skipless.studies.study_folder import StudyFolder, rank_and_world_size
from skipless.training.run_folder.provenance import provenance

_FILES = {
    "result.json": "all numbers, and everything that they depend on",
    "table.md": "the table as Markdown",
    "settings.json": "everything that the numbers depend on",
}


def write_study_page(
    folder: StudyFolder,
    text: StudyText,
    result: Record | str,
    *,
    model: nn.Module,
    name: str,
    data: str,
    config: Any,
    notes: Sequence[str],
    origin: Origin,
    pictures: Mapping[str, str] | None = None,
    drawn: Mapping[str, str] | None = None,
) -> None:
    """Write `index.html` to the folder of a study that is finished, on rank 0 only.

    Args:
        folder: of the study; its other files are there.
        text: what is said of the study.
        result: what came out, or its table in Markdown.
        model: that was measured.
        name: of the model.
        data: name of the data set.
        config: settings of the study.
        notes: how far to trust the numbers.
        origin: whose weights were measured, and by which command.
        pictures: captions of the pictures by file name.
        drawn: inline SVG of more pictures by caption.
    """
    if rank_and_world_size()[0] > 0:
        return
    files = {file: caption for file, caption in (pictures or {}).items() if (folder.path / file).is_file()}
    where = f" on {data}" if data else ""
    figures: dict[str, bytes | str] = {}
    if isinstance(result, Record) and (curve := inline_svg(result._draw, result._size, repr(result))):
        figures[text.curve] = curve
    page = Page(
        title=f"{text.title}: {name}{where}",
        description=text.description,
        ours=setting(name, data, origin.state),
        paper=text.paper,
        numbers=_numbers(result),
        figures=figures | dict(drawn or {}) | {what: (folder.path / file).read_bytes() for file, what in files.items()},
        notes=notes,
        made=provenance(next(model.parameters()).device),
        command=origin.command,
        settings={key: in_full(value) for key, value in asdict(config).items()},
        files=files_there(folder) | files,
    )
    write_files(folder.path, {PAGE: page_html(page)})


def _numbers(result: Record | str) -> str:
    if isinstance(result, str):
        return markdown_html(result)
    return "\n".join(table.html() for table in result.tables())


def files_there(folder: StudyFolder) -> dict[str, str]:
    """The files that a study has written beside its page, and what is in each."""
    return {file: what for file, what in _FILES.items() if (folder.path / file).is_file()}


def setting(name: str, data: str, state: ModelState | None) -> str:
    """A model, whose weights it has, and the data set, in words."""
    named = name.removesuffix(", untrained")
    whose = {"trained": "trained", "untrained": "not trained", "teacher": "the teacher of self-distillation"}
    told = f", {whose[state]}" if state else ""
    return f"{named}{told}{f'; {data}' if data else ''}"
