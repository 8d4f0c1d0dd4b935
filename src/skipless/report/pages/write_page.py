"""write_report: a report's files, its page, and a page of contents where a folder holds several reports."""

import re
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from skipless.report.pages.html_page import FOOTER, GENERATOR, RUNS_GENERATOR, document, section
from skipless.report.pages.page import PAGE, Page, page_html
from skipless.report.write_files import write_files

# Pages of earlier versions: by the mark of today's, the name of the report, and what tells a page without a mark.
_BEFORE = {
    GENERATOR: {"table1": '<table class="table1">', "conditioning": "<title>Conditioning of "},
    RUNS_GENERATOR: {"runs": "<title>Runs in "},
}
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


def write_report(out: Path, name: str, files: Mapping[str, Any], page: Page | str) -> dict[str, Path]:
    """Write the files of a report, and its page as `NAME.html`.

    `index.html` is the same page, or a page of contents where the folder holds several. It is left alone where
    something else has this name.

    Args:
        out: folder of the report.
        name: of the report, `table5`.
        files: contents by name, as for `write_files`.
        page: what the page shows, or the page itself.

    Returns:
        The path of each file by its name.

    Raises:
        InputError: if `out` cannot be written.
    """
    html = page if isinstance(page, str) else page_html(page)
    written = write_files(out, {**files, f"{name}.html": html})
    _keep_page_of_before(out)
    if is_ours(out / PAGE):
        several = None
        while several != (several := _titles(out)):  # another report may have ended meanwhile
            first = html if several.keys() <= {f"{name}.html"} else contents_html(several)
            written |= write_files(out, {PAGE: first})
    return written


def _titles(out: Path) -> dict[str, str]:
    """The titles of the reports in a folder, by file name."""
    return {file.name: title for file in sorted(out.glob("*.html")) if (title := _title(file))}


def _keep_page_of_before(out: Path) -> None:
    """Copy a report that an earlier version wrote to `index.html` alone to the name that it has today."""
    text = _read(out / PAGE)
    name = next((name for name, mark in _BEFORE[GENERATOR].items() if mark in text), "")
    if name and is_ours(out / PAGE) and not (out / f"{name}.html").exists():
        write_files(out, {f"{name}.html": text})


def contents_html(pages: Mapping[str, str]) -> str:
    """A page that links to others in its folder.

    Args:
        pages: titles by file name.
    """
    items = "\n".join(f'<li><a href="{escape(quote(name))}">{escape(title)}</a></li>' for name, title in pages.items())
    title, said = "Reports", "The tables and figures that have been made in this folder."
    body = [
        f'<header>\n<h1>{title}</h1>\n<p class="lead">{said}</p>\n</header>',
        section("Pages", f'<ul class="entries">\n{items}\n</ul>'),
    ]
    return document(title, said, body)


def is_ours(page: Path, generator: str = GENERATOR) -> bool:
    """Whether a name is free, or has a page that may be written anew.

    Args:
        page: the file.
        generator: the mark of such pages.
    """
    if not page.exists():
        return True
    text = _read(page)
    return generator in text or (text.endswith(FOOTER) and any(mark in text for mark in _BEFORE[generator].values()))


def _read(page: Path) -> str:
    """The text of a page; empty where it cannot be read."""
    try:
        return page.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _title(page: Path) -> str:
    """The title of one of our reports; empty for other files, and for pages over several reports."""
    if page.name == PAGE or not is_ours(page):
        return ""
    found = _TITLE.search(_read(page))
    return unescape(found[1]) if found else ""
