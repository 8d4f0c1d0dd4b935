"""Table 1 as Markdown and as CSV: ours beside the paper's, and never a bare number."""

import csv
import io
from collections.abc import Sequence

from skipless.experiments.supervised.cells import CellRuns
from skipless.experiments.supervised.paper import PAPER_SETTING
from skipless.report.labels import NOT_RUN, rate
from skipless.report.run_records import Setting

_CSV_HEADER = (
    "model",
    "optimizer",
    "paper_top1",
    "paper_setting",
    "top1_mean",
    "top1_sd",
    "n",
    "diverged",
    "learning_rate",
    "seeds",
    "setting",
)


def table1_markdown(cells: Sequence[CellRuns], setting: Setting) -> str:
    """Write Table 1 for a README: the two settings stand in the header, so the two scales cannot be mistaken.

    Example:
        >>> from skipless.experiments.supervised.cells import table1_cells
        >>> text = table1_markdown(table1_cells({}), Setting("ViT, d = 32", "digits", 30, 10))
        >>> print(text.splitlines()[2])
        | skip | AdamW | 80.3 | not run | 0 | – | 0 of 0 |
    """
    lines = [
        f"| model | optimizer | paper: {PAPER_SETTING} | ours: {setting} | n | learning rate | diverged |",
        "|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for cell in cells:
        numbers = f"{_paper(cell)} | {accuracy(cell)} | {cell.n} | {learning_rate(cell)} | {divergence(cell)}"
        lines.append(f"| {cell.row} | {cell.optimizer} | {numbers} |")
    return "\n".join([*lines, "", caption(cells), ""])


def table1_csv(cells: Sequence[CellRuns], setting: Setting) -> str:
    """Write Table 1 for programs: one row a cell, unrounded, empty where there is no number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for cell in cells:
        writer.writerow(
            (
                cell.row,
                cell.optimizer,
                cell.paper,
                PAPER_SETTING,
                cell.mean,
                cell.spread,
                cell.n,
                cell.diverged,
                cell.learning_rate,
                " ".join(str(run.seed) for run in cell.runs),
                setting,
            )
        )
    return buffer.getvalue()


def caption(cells: Sequence[CellRuns]) -> str:
    """Say what the numbers are, and no more than these cells need."""
    parts = ["Validation top-1 accuracy in percent."]
    if any(cell.n > 1 for cell in cells):
        parts.append("Ours: mean ± sample standard deviation over n seeds.")
    if any(cell.n == 1 for cell in cells):
        parts.append("Where n is 1 no spread can be given.")
    if any(cell.diverged for cell in cells):
        parts.append("A diverged run has no accuracy: n leaves it out.")
    muon = " or by Muon" if any(cell.optimizer == "Muon" for cell in cells) else ""
    return " ".join([*parts, f"The paper states one number a cell, without a spread, and none of ours{muon}."])


def accuracy(cell: CellRuns) -> str:
    """Format mean and spread, "not run" or "diverged"."""
    if not cell.runs:
        return NOT_RUN
    if cell.mean is None:
        return "diverged"
    return f"{cell.mean:.1f}" if cell.spread is None else f"{cell.mean:.1f} ± {cell.spread:.1f}"


def _paper(cell: CellRuns) -> str:
    return "–" if cell.paper is None else f"{cell.paper:.1f}"


def learning_rate(cell: CellRuns) -> str:
    """Format the peak learning rate as one types it: `3e-3`."""
    if cell.learning_rate is None:
        return "–"
    return rate(cell.learning_rate)


def divergence(cell: CellRuns) -> str:
    """Count the diverged runs."""
    return f"{cell.diverged} of {len(cell.runs)}"
