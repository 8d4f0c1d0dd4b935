"""Parts of a report's HTML page, which is one self-contained file for screen, phone and print."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

from skipless.choices import Row
from skipless.report.labels import ROW_CLASS, duration
from skipless.report.run_records import Run

_PAPER_LINK = '<a href="https://arxiv.org/abs/2510.00345">Cutting the Skip: Training Residual-Free Transformers</a>'

# Marks by which a later command knows the pages that it may replace.
GENERATOR = '<meta name="generator" content="skipless">\n'
RUNS_GENERATOR = '<meta name="generator" content="skipless report">\n'
FOOTER = f"<footer><p>After {_PAPER_LINK} (Ji et al., 2025).</p></footer>\n</body>\n</html>\n"


def document(
    title: str, description: str, body: Iterable[str], *, wide: bool = False, generator: str = GENERATOR
) -> str:
    """A complete HTML document; empty parts of the body are left out.

    Args:
        title: plain text, as is the description.
        description: for search engines.
        body: its sections.
        wide: whether there are many columns to make room for.
        generator: the mark of the commands that may replace it.
    """
    css = resources.files("skipless.report.pages").joinpath("page.css").read_text(encoding="utf-8")
    layout = ' class="wide-page"' if wide else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="description" content="{escape(description)}">\n{generator}'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body{layout}>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n{FOOTER}"
    )


def header(title: str, description: str, ours: str, paper: str = "") -> str:
    """The header of a page: title, description, and our setting beside the paper's, where the paper has one."""
    theirs = f"<div><dt>The paper’s</dt><dd>{escape(paper)}</dd></div>" if paper else ""
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(description)}</p>\n'
        f'<dl class="setting"><div><dt>{"Ours" if paper else "Setting"}</dt><dd>{escape(ours)}</dd></div>'
        f"{theirs}</dl>\n</header>"
    )


def section(heading: str, *parts: str, name: str = "") -> str:
    """A section of a page; empty parts are left out."""
    attribute = f' class="{name}"' if name else ""
    return (
        f"<section{attribute}>\n<h2>{escape(heading)}</h2>\n"
        + "\n".join(part for part in parts if part)
        + "\n</section>"
    )


def bar(percent: float, name: str = "paper") -> str:
    """A bar from 0 to 100 %."""
    return f'<span class="bar {name}" aria-hidden="true"><i style="width:{percent:.1f}%"></i></span>'


def numeric(right: bool = True) -> str:
    """The class attribute of a table cell with a number; empty if `right` is false."""
    return ' class="number"' if right else ""


def runs_table(heads: Sequence[str], rows: Sequence[str], caption: str) -> str:
    """A table of all runs, which scrolls if it is too wide.

    Args:
        heads: column titles. The first two columns, and a last one titled "remark", hold text.
        rows: rows returned by `run_row`.
        caption: caption as plain text.
    """
    columns = "".join(
        f'<th scope="col"{numeric(i > 1 and head != "remark")}>{head}</th>' for i, head in enumerate(heads)
    )
    body = "\n".join(rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every run">\n<table class="runs">\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{columns}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def run_row(row: Row, optimizer: str, values: Iterable[str], remark: str | None) -> str:
    """One row of `runs_table`.

    Args:
        row: row of the paper's tables that the model belongs to.
        optimizer: label of the optimizer.
        values: texts of the number cells.
        remark: text of the remark column; None if the table has no such column.
    """
    numbers = "".join(f"<td{numeric()}>{value}</td>" for value in values)
    last = "" if remark is None else f'<td class="flagged">{escape(remark)}</td>'
    return f'<tr><th scope="row" class="{ROW_CLASS[row]}">{row}</th><td>{optimizer}</td>{numbers}{last}</tr>'


def picture(name: str, content: bytes, drawing: str = "") -> str:
    """A figure with its caption, from the bytes of a PNG or from inline SVG (`figure_style.inline_svg`)."""
    if not drawing:
        data = base64.b64encode(content).decode()
        drawing = f'<img alt="{escape(name)}" style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
    else:
        drawing = f'<div class="wide" role="img" aria-label="{escape(name)}">{drawing}</div>'
    return f"<figure>\n{drawing}\n<figcaption>{escape(name)}</figcaption>\n</figure>"


def environment(runs: Sequence[Run]) -> str:
    """List commit, versions and hardware of the runs; values that differ are shown with their number of runs."""
    names = {"commit": "Commit", "versions": "Versions", "hardware": "Hardware"}
    items = []
    for key, label in names.items():
        found = [_flat(run.record.get(key)) for run in runs]
        distinct = list(dict.fromkeys(found))
        for value in distinct:
            count = "" if len(distinct) == 1 else f" ({found.count(value)} of {len(runs)} runs)"
            items.append(f"<dt>{label}</dt><dd>{escape(value)}{count}</dd>")
    total = duration(sum(run.seconds for run in runs))
    items.append(f"<dt>Training time</dt><dd>{total} in all, {len(runs)} run{'' if len(runs) == 1 else 's'}</dd>")
    return f'<dl class="facts">{"".join(items)}</dl>'


def facts(record: Mapping[str, Any]) -> str:
    """List commit, versions and hardware of the process that made a report, from what `provenance` returns."""
    names = {"commit": "Commit", "versions": "Versions", "hardware": "Hardware", "started": "Written"}
    return facts_list({label: _flat(record.get(key)) for key, label in names.items()})


def facts_list(values: Mapping[str, str]) -> str:
    """Names and what stands for them, as plain text."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f'<dl class="facts">{"".join(items)}</dl>'


def command_block(command: str) -> str:
    """A command line to copy; long ones wrap."""
    return f"<pre><code>{escape(command)}</code></pre>"


def file_links(files: Mapping[str, str]) -> str:
    """Links to files in the folder of the page, and what is in each."""
    items = (
        f'<li><a href="{escape(quote(name))}">{escape(name)}</a>: {escape(what)}</li>' for name, what in files.items()
    )
    return '<ul class="entries">\n' + "\n".join(items) + "\n</ul>"


def _flat(value: Any) -> str:
    """A JSON value as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return "not recorded" if value in (None, "") else str(value)


def bullets(notes: Sequence[str]) -> str:
    """A bullet list of plain-text sentences."""
    return "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in notes) + "\n</ul>"
