"""The index page itself: a line for each run, the reports beside them, and what could not be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import get_args

from skipless.report.pages.html_page import RUNS_GENERATOR, bullets, command_block, document, numeric, section
from skipless.report.runs_index.cells import CAPTION, COLUMNS, Entry, run_cells
from skipless.report.runs_index.links import link, plain, shown
from skipless.report.runs_index.run_line import RunLine, State


@dataclass(frozen=True)
class RunsIndex:
    """What the page shows.

    Attributes:
        root: the folder that was looked through.
        runs: in the order of their paths.
        own: of each run, the pages of studies and measurements within its folder.
        reports: pages that belong to no run.
        unread: what could not be read, with the reason.
        command: what makes this page again.
        made: by which version and when, in words.
    """

    root: Path
    runs: Sequence[RunLine]
    own: Mapping[Path, Sequence[Entry]]
    reports: Sequence[Entry]
    unread: Sequence[tuple[Path, str]]
    command: str
    made: str


def index_html(index: RunsIndex, page: Path) -> str:
    """Write the page that will lie at a path."""
    script = resources.files("skipless.report.runs_index").joinpath("sort.js").read_text(encoding="utf-8")
    said = summary(index)
    title = f"Runs in {plain(index.root)}"
    body = [
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(said)}</p>\n</header>',
        section("Could not be read", _unread(index)) if index.unread else "",
        section("Every run", _runs_table(index, page), name="runs-section") if index.runs else "",
        section("Reports and other pages", _reports(index, page)) if index.reports else "",
        section("How far to trust this", bullets(_NOTES)),
        section("Run it again", command_block(index.command), f'<p class="note">{escape(index.made)}</p>'),
        f"<script>\n{script}</script>",
    ]
    return document(title, said, body, wide=True, generator=RUNS_GENERATOR)


def summary(index: RunsIndex) -> str:
    """How many runs there are in which state.

    Example:
        >>> summary(RunsIndex(Path("runs"), [], {}, [("Table 1", Path("runs/index.html"))], [], "", ""))
        'No run; 1 report.'
    """
    states = [run.state for run in index.runs]
    counts = ", ".join(f"{states.count(one)} {one}" for one in get_args(State) if one in states)
    parts = [f"{_count(len(states), 'run')}: {counts}" if states else "No run"]
    if index.reports:
        parts.append(_count(len(index.reports), "report"))
    if index.unread:
        parts.append(f"{_count(len(index.unread), 'place')} could not be read")
    return f"{'; '.join(parts)}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _runs_table(index: RunsIndex, page: Path) -> str:
    heads = "".join(_head(name, kind) for name, kind in COLUMNS.items())
    rows = "\n".join(
        f"<tr>{''.join(run_cells(run, index.root, index.own.get(run.folder, ()), page))}</tr>" for run in index.runs
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every run">\n<table class="runs index sortable">\n'
        f"<caption>{escape(CAPTION)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table>\n</div>"
    )


def _head(name: str, kind: str) -> str:
    sorted_as = f' data-sort="{kind}"' if kind else ""
    return f'<th scope="col"{sorted_as}{numeric(kind == "number")}>{name}</th>'


def _reports(index: RunsIndex, page: Path) -> str:
    items = (
        f"<li>{link(target, page, title)} <small>{shown(target.parent.relative_to(index.root))}</small></li>"
        for title, target in index.reports
    )
    return '<ul class="entries">\n' + "\n".join(items) + "\n</ul>"


def _unread(index: RunsIndex) -> str:
    items = (
        f'<li class="flagged"><code>{shown(path.relative_to(index.root))}</code>: {escape(reason)}</li>'
        for path, reason in index.unread
    )
    return '<ul class="entries">\n' + "\n".join(items) + "\n</ul>"


_NOTES = (
    "A line is one run of one seed, n = 1. Two lines can be compared where recipe, data, model and length are the "
    "same; between single runs, small differences mean nothing.",
    "“best” is chosen afterwards among the evaluations of the run, on the very images that it is scored on. “last” is "
    "not chosen.",
    "“running” is known of processes on this machine alone. A run of another machine is shown as cut off until it is "
    "finished.",
    "A run is damaged where one of its files cannot be read; what the other files say is shown all the same.",
)
