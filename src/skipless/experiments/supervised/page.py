"""The page of Table 1 and Figure 1."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from skipless.choices import ALL_ROWS
from skipless.display.values import in_a_row
from skipless.experiments.supervised.cells import CellRuns, optimizers_of, table1_cells
from skipless.experiments.supervised.paper import PAPER_SETTING
from skipless.experiments.supervised.table import caption, divergence, learning_rate
from skipless.report.labels import NOT_RUN, ROW_CLASS, OptimizerLabel, duration, printed_difference
from skipless.report.pages.html_page import (
    bar,
    bullets,
    document,
    environment,
    file_links,
    header,
    run_row,
    runs_table,
    section,
)
from skipless.report.pictures.curves import DRAWN
from skipless.report.run_records import Run, Setting


def page_html(
    cells: Sequence[CellRuns],
    panels: Mapping[OptimizerLabel, str],
    *,
    setting: Setting,
    title: str,
    description: str,
    command: str,
    notes: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
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
        files: beside the page, and what is in each.
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
        section("Files", file_links(files)) if files else "",
    ]
    return document(title, description, body)


def _table1(cells: Sequence[CellRuns], setting: Setting) -> str:
    optimizers = optimizers_of(cells)
    empty = table1_cells({(row, name): () for row in ALL_ROWS for name in optimizers})
    by_key = {(cell.row, cell.optimizer): cell for cell in (*empty, *cells)}
    groups = "".join(f'<th scope="colgroup" colspan="2">{optimizer}</th>' for optimizer in optimizers)
    columns = '<col class="model">' + '<col class="theirs"><col class="ours">' * len(optimizers)
    heads = '<th scope="col">paper</th><th scope="col">ours</th>' * len(optimizers)
    rows = []
    for row in ALL_ROWS:
        values = "".join(_table1_pair(by_key[row, name]) for name in optimizers)
        rows.append(f'<tr><th scope="row" class="{ROW_CLASS[row]}">{row}</th>{values}</tr>')
    text = f"{caption(cells)} Paper: {PAPER_SETTING}. Ours: {setting}. Compare within a column, not across the two."
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table 1">\n<table class="table1">\n'
        f"<caption>{escape(text)}</caption>\n{columns}<thead>"
        f'<tr><td rowspan="2"></td>{groups}</tr>\n<tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table>\n</div>"
    )


def _table1_pair(cell: CellRuns) -> str:
    """Give the paper's cell and ours; the bars run from 0 to 100 %."""
    theirs = "–" if cell.paper is None else f"{cell.paper:.1f}{bar(cell.paper)}"
    return f'<td class="theirs">{theirs}</td><td>{_ours(cell)}</td>'


def _ours(cell: CellRuns) -> str:
    if not cell.runs:
        return f'<span class="none">{NOT_RUN}</span>'
    flag = f'<br><span class="flag">{divergence(cell)} diverged</span>' if cell.diverged else ""
    small = f"<small>n = {cell.n}, lr {learning_rate(cell)}{flag}</small>"
    if cell.mean is None:
        return f'<span class="none">diverged</span>{small}'
    spread = "" if cell.spread is None else f' <span class="spread">± {cell.spread:.1f}</span>'
    return f"<b>{cell.mean:.1f}</b>{spread}{bar(cell.mean, ROW_CLASS[cell.row])}{small}"


def _reading(cells: Sequence[CellRuns]) -> str:
    """State what the initialisation adds, in words: the difference of what the table prints."""
    by_key = {(cell.row, cell.optimizer): cell for cell in cells}
    clauses = []
    for optimizer in optimizers_of(cells):
        without, with_init = by_key.get(("skipless", optimizer)), by_key.get(("skipless + init", optimizer))
        if without is None or with_init is None or without.mean is None or with_init.mean is None:
            continue
        ours = printed_difference(with_init.mean, without.mean)
        theirs = "not in the paper"
        if with_init.paper is not None and without.paper is not None:
            theirs = f"the paper: {printed_difference(with_init.paper, without.paper)}"
        clauses.append(f"{ours} points with {optimizer} ({theirs})")
    if not clauses:
        return ""
    said = f"What the paper's initialisation adds to the skipless model: {in_a_row(clauses)}."
    return f"<p>{escape(said)}</p>".replace("-", "−")


def _figure1(cells: Sequence[CellRuns], panels: Mapping[OptimizerLabel, str], setting: Setting) -> str:
    drawings = "\n".join(
        f'<div role="img" aria-label="{escape(_spoken(cells, optimizer))}">{svg}</div>'
        for optimizer, svg in panels.items()
    )
    many = any(run.loss.size > DRAWN for cell in cells for run in cell.runs)
    dots = f"averaged to at most {DRAWN} a run" if many else "as logged"
    parts = [f"Lines: training loss by epoch, lightly smoothed. Dots: the losses of every run, {dots}."]
    if any(cell.n > 1 for cell in cells):
        parts.append("Line and band: mean ± sample standard deviation over the seeds.")
    if any(cell.diverged for cell in cells):
        parts.append("A thin line that ends in a cross is a run that diverged; it is not part of the other lines.")
    parts.append(f"Dashed: a uniform guess, ln {setting.classes} = {setting.chance_loss:.2f}.")
    text = escape(" ".join(parts))
    return f'<figure>\n<div class="panels">\n{drawings}\n</div>\n<figcaption>{text}</figcaption>\n</figure>'


def _spoken(cells: Sequence[CellRuns], optimizer: OptimizerLabel) -> str:
    """Describe a panel to those who do not see it."""
    ends = []
    for cell in cells:
        losses = [run.final_loss for run in cell.runs if run.final_loss is not None and not run.diverged]
        if cell.optimizer == optimizer:
            ends.append(
                f"{cell.row} ends at {sum(losses) / len(losses):.2f}" if losses else f"{cell.row} has no finished run"
            )
    return f"Training loss with {optimizer}: {'; '.join(ends)}."


def _runs_table(runs: Sequence[tuple[CellRuns, Run]]) -> str:
    remarks = any(run.diverged for _, run in runs)
    heads = ["model", "optimizer", "seed", "learning rate", "top-1, %", "final loss", "steps", "time"]
    return runs_table(
        heads + ["remark"] * remarks,
        [_run_row(cell, run, remarks) for cell, run in runs],
        "Final loss: mean training loss over the last tenth of the run.",
    )


def _run_row(cell: CellRuns, run: Run, remarks: bool) -> str:
    top1 = "–" if run.top1 is None else f"{run.top1:.2f}"
    loss = "–" if run.final_loss is None else f"{run.final_loss:.3f}"
    values = (str(run.seed), learning_rate(cell), top1, loss, f"{run.steps:,}", duration(run.seconds))
    remark = f"diverged: {run.reason or 'no reason recorded'}" if run.diverged else ""
    return run_row(cell.row, cell.optimizer, values, remark if remarks else None)


def _recipes(cells: Iterable[CellRuns]) -> list[str]:
    """Fold away each cell's resolved recipe, as its first seed ran it."""
    return [
        f"<details><summary>Recipe of {cell.row}, {cell.optimizer}</summary>\n"
        f"<pre><code>{escape(json.dumps(cell.runs[0].record.get('recipe'), indent=2))}</code></pre></details>"
        for cell in cells
        if cell.runs
    ]
