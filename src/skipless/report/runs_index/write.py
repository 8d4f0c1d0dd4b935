"""write_index: look through a folder of runs, and write the page."""

import os
import time
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from skipless import __version__
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.report.found_study import found_study
from skipless.report.pages.html_page import RUNS_GENERATOR
from skipless.report.pages.write_page import is_ours
from skipless.report.runs_index.cells import Entry
from skipless.report.runs_index.find import Findings, find
from skipless.report.runs_index.page import RunsIndex, index_html, summary
from skipless.report.runs_index.run_line import RunLine, read_run_line
from skipless.report.write_files import write_files

PAGES = (
    "conditioning.html",
    "index.html",
    "table.md",
    "conditioning.json",
    "result.json",
)  # of a folder, the most legible first


def write_index(
    root: Path, *, out: Path | None, reports: Mapping[str, str], metrics: Sequence[str], command: str
) -> tuple[Path, str]:
    """Write an index page over a folder of runs at any depth.

    Args:
        root: the folder.
        out: file of the page; by default `index.html` in the folder, or `runs.html` where that is another page,
            or the next name that is free.
        reports: titles of the reports of `skipless reproduce`, by name.
        metrics: names of the numbers that runs are judged by, the most telling first.
        command: what makes the page again.

    Returns:
        Where the page lies, and what it holds in a line.

    Raises:
        InputError: if there is no such folder, nothing to show in it, or the page cannot be written.
    """
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is no folder; give one that holds runs of `skipless train`")
    index = _index(root, find(root, reports), reports, metrics, command)
    if not index.runs and not index.reports:
        unread = f"; {len(index.unread)} places in it could not be read" if index.unread else ""
        raise InputError(
            f"no run in {str(root)!r}{unread}; `skipless train RECIPE --out {root / 'NAME'}` makes one, or give the "
            "folder that holds them"
        )
    page = out or _free_name(root)
    if page.is_dir():
        raise InputError(f"--out {str(page)!r} is a folder; give the page's file, {str(page / 'index.html')!r}")
    if not is_ours(page, RUNS_GENERATOR):
        raise InputError(
            f"--out {str(page)!r} is there, and no page of `skipless report`: give another name, or move it away"
        )
    write_files(page.parent, {page.name: index_html(index, page.absolute())})
    return page, summary(index)


def _index(root: Path, found: Findings, reports: Mapping[str, str], metrics: Sequence[str], command: str) -> RunsIndex:
    runs: list[RunLine] = []
    unread = list(found.unread)
    for folder in found.runs:
        line = read_run_line(folder, metrics)
        if isinstance(line, str):
            unread.append((folder, line))
        else:
            runs.append(line)
    own: dict[Path, list[Entry]] = {run.folder: [] for run in runs}
    others: list[Entry] = [
        (reports[name], _page_of(folder, f"{name}.html", f"{name}.md")) for name, folder in found.reports
    ]
    for folder, title in _titled(found, unread):
        holder = next((parent for parent in (folder, *folder.parents) if parent in own), None)
        (others if holder is None else own[holder]).append((title, _page_of(folder)))
    made = f"skipless {__version__}, {time.strftime('%Y-%m-%d %H:%M %z')}"
    return RunsIndex(root, runs, own, others, sorted(unread, key=lambda one: os.fsencode(one[0])), command, made)


def _titled(found: Findings, unread: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Studies and measurements with their titles."""
    titled = []
    for folder in found.studies:
        study = found_study(folder)
        if isinstance(study, str):
            unread.append((folder, study))
        else:
            titled.append((folder, str(study)))
    return titled + [(folder, f"conditioning, {place_name(folder)}") for folder in found.measurements]


def _page_of(folder: Path, *names: str) -> Path:
    """The file of a folder that shows best what is in it."""
    return next((folder / name for name in (*names[:1], *PAGES, *names) if (folder / name).is_file()), folder)


def _free_name(root: Path) -> Path:
    """`index.html`, unless that is a page of something else, as in the folder of a report; then `runs.html`, ..."""
    names = chain(("index.html", "runs.html"), (f"runs-{i}.html" for i in count(2)))
    return next(root / name for name in names if is_ours(root / name, RUNS_GENERATOR))
