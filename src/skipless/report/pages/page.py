"""A report's page: what it is, in which setting, its tables and pictures, how far to trust it, and how to make it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skipless.report.pages.html_page import (
    bullets,
    command_block,
    document,
    environment,
    facts,
    facts_list,
    file_links,
    header,
    picture,
    section,
)
from skipless.report.run_records import Run

PAGE = "index.html"
_KEPT = "What an earlier call had measured and kept was taken from its files."


@dataclass(frozen=True)
class Page:
    """What a page shows. All texts are plain.

    Attributes:
        title: of the page.
        description: what it is, in one or two sentences.
        ours: our setting.
        numbers: the tables as HTML, and what is said below them: `markdown_html` of a report, or of each table `html`.
        notes: how far to trust the numbers, a sentence each.
        paper: the paper's setting; empty where it has none.
        differences: what is otherwise than in the paper, a sentence each.
        figures: caption to the bytes of a PNG, or to inline SVG.
        command: what makes the page again; empty where it was made from Python.
        settings: every setting in words, by name.
        files: the files beside the page, and what is in each.
        runs: table of the runs behind it, as HTML.
        trained: the runs themselves, which name their own commits, versions and hardware.
        made: the commit, versions and hardware of a page without runs, as `provenance` returns them.
    """

    title: str
    description: str
    ours: str
    numbers: str
    notes: Sequence[str]
    paper: str = ""
    differences: Sequence[str] = ()
    figures: Mapping[str, bytes | str] = field(default_factory=dict)
    command: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    runs: str = ""
    trained: Sequence[Run] = ()
    made: Mapping[str, Any] = field(default_factory=dict)


def page_html(page: Page) -> str:
    """Write it: one file that loads nothing else."""
    environments = [environment(page.trained)] if page.trained else [facts(page.made), f'<p class="note">{_KEPT}</p>']
    body = [
        header(page.title, page.description, page.ours, page.paper),
        section("Numbers", page.numbers),
        section("Pictures", *(_picture(name, content) for name, content in page.figures.items()))
        if page.figures
        else "",
        section("What differs from the paper", bullets(page.differences)) if page.differences else "",
        section("How far to trust this", bullets(page.notes)) if page.notes else "",
        section("Every run", page.runs, name="runs-section") if page.runs else "",
        section("Every setting", facts_list(page.settings)) if page.settings else "",
        section("Run it again", command_block(page.command)) if page.command else "",
        section("Made with", *environments),
        section("Files", file_links(page.files)) if page.files else "",
    ]
    return document(page.title, page.description, body)


def _picture(name: str, content: bytes | str) -> str:
    return picture(name, b"", content) if isinstance(content, str) else picture(name, content)
