"""Addresses and names of what was found, safe in HTML whatever a folder is called."""

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from skipless.report.write_files import as_utf8


def href(target: Path, page: Path) -> str:
    """The address of a file or folder, relative to the folder of the page that names it."""
    return quote(os.fsencode(os.path.relpath(target, page.parent)))


def plain(path: Path | str) -> str:
    """A path as text; bytes that are no UTF-8 are shown as escapes.

    Example:
        >>> plain("runs/caf\\udce9")
        'runs/caf\\\\xe9'
    """
    return as_utf8(str(path)).decode()


def shown(path: Path | str) -> str:
    """A path as text in HTML."""
    return escape(plain(path))


def link(target: Path, page: Path, text: str) -> str:
    """A link in HTML; the text is plain."""
    return f'<a href="{escape(href(target, page))}">{shown(text)}</a>'
