"""The page of a report: one HTML file that loads nothing else and reads on a screen, a phone and paper."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from skipless.report.records import (
    OPTIMIZERS,
    PAPER_SETTING,
    ROWS,
    Cell,
    OptimizerName,
    Row,
    Run,
    Setting,
    table1_cells,
)
from skipless.report.table import NOT_RUN, caption, divergence, learning_rate

ROW_CLASS: Mapping[Row, str] = {"skip": "skip", "skipless": "skipless", "skipless + init": "init"}
_PAPER_LINK = '<a href="https://arxiv.org/abs/2510.00345">Cutting the Skip: Training Residual-Free Transformers</a>'


def page_html(
    cells: Sequence[Cell],
    panels: Mapping[OptimizerName, str],
    *,
    setting: Setting,
    title: str,
    description: str,
    command: str,
    notes: Sequence[str] = (),
) -> str:
    """Write the page.

    Args:
        cells: of Table 1.
        panels: Figure 1 as inline SVG, one an optimizer.
        setting: where our numbers come from.
        title: plain text, as are all that follow.
        description: the first paragraph.
        command: what makes this page again.
        notes: what the reader must know to trust the numbers no further than they go.
    """
    runs = [(cell, run) for cell in cells for run in cell.runs]
    body = [
        header(title, description, str(setting), str(PAPER_SETTING)),
        section("Table 1: accuracy", _table1(cells, setting), _reading(cells)),
        section("Figure 1: training loss", _figure1(cells, panels, setting)),
        section("Every run", _runs_table(runs), *_recipes(cells), name="runs-section") if runs else "",
        section("Made with", environment([run for _, run in runs])) if runs else "",
        section("Run it again", f"<pre><code>{escape(command)}</code></pre>"),
        section("How far to trust this", bullets(notes)) if notes else "",
    ]
    return document(title, description, body)


def document(title: str, description: str, body: Iterable[str]) -> str:
    """A whole page around its parts; empty parts are left out."""
    css = resources.files("skipless.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="description" content="{escape(description)}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<footer><p>After {_PAPER_LINK} (Ji et al., 2025).</p></footer>\n</body>\n</html>\n"
    )


def header(title: str, description: str, ours: str, paper: str) -> str:
    """The head of a page: what it is, and the two settings that must not be mistaken for each other."""
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(description)}</p>\n'
        f'<dl class="setting"><div><dt>Ours</dt><dd>{escape(ours)}</dd></div>'
        f"<div><dt>The paper’s</dt><dd>{escape(paper)}</dd></div></dl>\n</header>"
    )


def section(heading: str, *parts: str, name: str = "") -> str:
    """A section of a page; empty parts are left out."""
    attribute = f' class="{name}"' if name else ""
    return (
        f"<section{attribute}>\n<h2>{escape(heading)}</h2>\n"
        + "\n".join(part for part in parts if part)
        + "\n</section>"
    )


def _table1(cells: Sequence[Cell], setting: Setting) -> str:
    by_key = {(cell.row, cell.optimizer): cell for cell in (*table1_cells({}), *cells)}
    groups = "".join(f'<th scope="colgroup" colspan="2">{optimizer}</th>' for optimizer in OPTIMIZERS)
    columns = '<col class="model">' + '<col class="theirs"><col class="ours">' * len(OPTIMIZERS)
    heads = '<th scope="col">paper</th><th scope="col">ours</th>' * len(OPTIMIZERS)
    rows = []
    for row in ROWS:
        values = "".join(_table1_pair(by_key[row, name]) for name in OPTIMIZERS)
        rows.append(f'<tr><th scope="row" class="{ROW_CLASS[row]}">{row}</th>{values}</tr>')
    text = f"{caption(cells)} Paper: {PAPER_SETTING}. Ours: {setting}. Compare within a column, not across the two."
    return (
        f'<table class="table1">\n<caption>{escape(text)}</caption>\n{columns}<thead>'
        f'<tr><td rowspan="2"></td>{groups}</tr>\n<tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table>"
    )


def _table1_pair(cell: Cell) -> str:
    """Give the paper's cell and ours; the bars run from 0 to 100 %."""
    return f'<td class="theirs">{cell.paper:.1f}{bar(cell.paper)}</td><td>{_ours(cell)}</td>'


def _ours(cell: Cell) -> str:
    if not cell.runs:
        return f'<span class="none">{NOT_RUN}</span>'
    flag = f'<br><span class="flag">{divergence(cell)} diverged</span>' if cell.diverged else ""
    small = f"<small>n = {cell.n}, lr {learning_rate(cell)}{flag}</small>"
    if cell.mean is None:
        return f'<span class="none">diverged</span>{small}'
    spread = "" if cell.spread is None else f' <span class="spread">± {cell.spread:.1f}</span>'
    return f"<b>{cell.mean:.1f}</b>{spread}{bar(cell.mean, ROW_CLASS[cell.row])}{small}"


def bar(percent: float, name: str = "paper") -> str:
    """A bar from 0 to 100 %."""
    return f'<span class="bar {name}" aria-hidden="true"><i style="width:{percent:.1f}%"></i></span>'


def _reading(cells: Sequence[Cell]) -> str:
    """State what the initialisation adds, in words: the one comparison that holds on any scale."""
    by_key = {(cell.row, cell.optimizer): cell for cell in cells}
    clauses = []
    for optimizer in OPTIMIZERS:
        without, with_init = by_key.get(("skipless", optimizer)), by_key.get(("skipless + init", optimizer))
        if without is None or with_init is None or without.mean is None or with_init.mean is None:
            continue
        ours, theirs = with_init.mean - without.mean, with_init.paper - without.paper
        clauses.append(f"{ours:+.1f} points with {optimizer} (the paper: {theirs:+.1f})")
    if not clauses:
        return ""
    return f"<p>What the initialisation adds to the skipless model: {escape(' and '.join(clauses))}.</p>".replace(
        "-", "−"
    )


def _figure1(cells: Sequence[Cell], panels: Mapping[OptimizerName, str], setting: Setting) -> str:
    drawings = "\n".join(
        f'<div role="img" aria-label="{escape(_spoken(cells, optimizer))}">{svg}</div>'
        for optimizer, svg in panels.items()
    )
    parts = ["Training loss by epoch, lightly smoothed; the raw losses of every run are drawn behind."]
    if any(cell.n > 1 for cell in cells):
        parts.append("Line and band: mean ± sample standard deviation over the seeds.")
    if any(cell.diverged for cell in cells):
        parts.append("A cross marks where a run diverged; such a run is not part of the line.")
    parts.append(f"Dashed: a uniform guess, ln {setting.classes} = {setting.chance_loss:.2f}.")
    text = escape(" ".join(parts))
    return f'<figure>\n<div class="panels">\n{drawings}\n</div>\n<figcaption>{text}</figcaption>\n</figure>'


def _spoken(cells: Sequence[Cell], optimizer: OptimizerName) -> str:
    """Describe a panel to those who do not see it."""
    ends = []
    for cell in cells:
        losses = [run.final_loss for run in cell.runs if run.final_loss is not None and not run.diverged]
        if cell.optimizer == optimizer:
            ends.append(
                f"{cell.row} ends at {sum(losses) / len(losses):.2f}" if losses else f"{cell.row} has no finished run"
            )
    return f"Training loss with {optimizer}: {'; '.join(ends)}."


def _runs_table(runs: Sequence[tuple[Cell, Run]]) -> str:
    heads = ("model", "optimizer", "seed", "learning rate", "top-1, %", "final loss", "steps", "time")
    numeric = ("seed", "learning rate", "top-1, %", "final loss", "steps", "time")
    columns = "".join(f'<th scope="col"{_numeric(head in numeric)}>{head}</th>' for head in heads)
    remarks = any(run.diverged for _, run in runs)
    columns += '<th scope="col">remark</th>' if remarks else ""
    body = "\n".join(_run_row(cell, run, remarks) for cell, run in runs)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every run">\n<table class="runs">\n'
        "<caption>Final loss: mean training loss over the last tenth of the run.</caption>\n"
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def _run_row(cell: Cell, run: Run, remarks: bool) -> str:
    top1 = "–" if run.top1 is None else f"{run.top1:.2f}"
    loss = "–" if run.final_loss is None else f"{run.final_loss:.3f}"
    values = (str(run.seed), learning_rate(cell), top1, loss, f"{run.steps:,}", duration(run.seconds))
    numbers = "".join(f"<td{_numeric(True)}>{value}</td>" for value in values)
    remark = f"diverged: {escape(run.reason or 'no reason recorded')}" if run.diverged else ""
    last = f'<td class="flagged">{remark}</td>' if remarks else ""
    head = f'<th scope="row" class="{ROW_CLASS[cell.row]}">{cell.row}</th><td>{cell.optimizer}</td>'
    return f"<tr>{head}{numbers}{last}</tr>"


def _numeric(right: bool) -> str:
    return ' class="number"' if right else ""


def duration(seconds: float) -> str:
    """Format seconds with the two units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _recipes(cells: Iterable[Cell]) -> list[str]:
    """Fold away each cell's resolved recipe, as its first seed ran it."""
    return [
        f"<details><summary>Recipe of {cell.row}, {cell.optimizer}</summary>\n"
        f"<pre><code>{escape(json.dumps(cell.runs[0].record.get('recipe'), indent=2))}</code></pre></details>"
        for cell in cells
        if cell.runs
    ]


def environment(runs: Sequence[Run]) -> str:
    """List commit, versions, hardware: once if all runs agree, else with the number of runs."""
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


def _flat(value: Any) -> str:
    """Write a JSON value as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return "not recorded" if value in (None, "") else str(value)


def bullets(notes: Sequence[str]) -> str:
    """Sentences of plain text as a list."""
    return "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in notes) + "\n</ul>"
