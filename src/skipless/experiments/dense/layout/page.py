"""The page of a table or figure of section 6.2: ours beside the paper's, and where the two settings differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from skipless.experiments.dense.layout.table import DenseTable, Line, Value
from skipless.experiments.dense.pretraining.history import Pretraining, pretraining_table
from skipless.report.labels import ROW_CLASS
from skipless.report.pages.html_page import (
    bar,
    bullets,
    document,
    environment,
    file_links,
    header,
    picture,
    section,
)
from skipless.report.pictures.figure_style import inline_svg


@dataclass(frozen=True)
class DensePage:
    """What a page shows.

    Attributes:
        title: plain text, as are all that follow.
        description: the first paragraph.
        ours: our setting.
        paper: the paper's.
        differences: what is otherwise than in the paper, a sentence each.
        notes: how far to trust the numbers, a sentence each.
        command: what makes this page again.
        table: of numbers, if there is one.
        figures: caption to SVG text or the bytes of a PNG.
        runs: behind all this.
        files: beside the page, and what is in each.
    """

    title: str
    description: str
    ours: str
    paper: str
    differences: Sequence[str]
    notes: Sequence[str]
    command: str
    table: DenseTable | None = None
    figures: Mapping[str, bytes] = field(default_factory=dict)
    runs: Sequence[Pretraining] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def dense_page(page: DensePage) -> str:
    """Write it: one file that loads nothing else."""
    made = [one.run for one in page.runs]
    body = [
        header(page.title, page.description, page.ours, page.paper),
        section("What differs from the paper", bullets(page.differences)) if page.differences else "",
        section("Numbers", _table(page.table)) if page.table is not None else "",
        section("Pictures", *(_figure(name, content) for name, content in page.figures.items()))
        if page.figures
        else "",
        section("Every run", pretraining_table(page.runs), name="runs-section") if made else "",
        section("Made with", environment(made)) if made else "",
        section("Run it again", f"<pre><code>{escape(page.command)}</code></pre>") if page.command else "",
        section("How far to trust this", bullets(page.notes)) if page.notes else "",
        section("Files", file_links(page.files)) if page.files else "",
    ]
    return document(page.title, page.description, body)


def _figure(name: str, content: bytes) -> str:
    drawn = "" if content.startswith(b"\x89PNG") else inline_svg(content.decode())
    return picture(name, content, drawn)


def _table(table: DenseTable) -> str:
    groups = "".join(f'<th scope="colgroup" colspan="2">{escape(name)}</th>' for name in table.columns)
    details = "".join(f'<th scope="col" rowspan="2">{escape(name)}</th>' for name in table.details)
    heads = '<th scope="col">paper</th><th scope="col">ours</th>' * len(table.columns)
    body, group = [], ""
    width = 2 + len(table.details) + 2 * len(table.columns)
    for line in table.lines:
        if line.group != group:
            group = line.group
            body.append(f'<tr><th scope="rowgroup" colspan="{width}"><b>{escape(group)}</b></th></tr>')
        body.append(_line(line, table))
    caption = f"{table.caption} Paper: {table.paper}. Ours: {table.ours}."
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Numbers">\n<table class="dense">\n'
        f"<caption>{escape(caption)}</caption>\n<thead>"
        f'<tr><th scope="col" rowspan="2">model</th>{details}{groups}<th scope="col" rowspan="2">n</th></tr>\n'
        f"<tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>\n</div>"
    )


def _line(line: Line, table: DenseTable) -> str:
    kind = next((name for row, name in ROW_CLASS.items() if row == line.row.partition(",")[0]), "")
    details = "".join(f"<td>{escape(line.detail.get(name, ''))}</td>" for name in table.details)
    values = "".join(_pair(line.values.get(name, Value(None)), kind, table.bars) for name in table.columns)
    return f'<tr><th scope="row" class="{kind}">{escape(line.row)}</th>{details}{values}<td>{escape(line.n)}</td></tr>'


def _pair(value: Value, kind: str, most: float) -> str:
    paper = "–" if value.paper is None else f"{value.paper:.1f}{bar(100 * value.paper / most)}"
    if value.mean is None:
        ours = f'<span class="none">{value}</span>'
    else:
        spread = "" if value.spread is None else f' <span class="spread">± {value.spread:.1f}</span>'
        where = f"<small>{escape(_places(value.where))}</small>" if any(value.where) else ""
        ours = f"<b>{value.mean:.1f}</b>{spread}{bar(100 * value.mean / most, kind or 'paper')}{where}"
    return f'<td class="theirs">{paper}</td><td>{ours}</td>'


def _places(where: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(where))
