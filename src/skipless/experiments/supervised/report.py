"""The files of Table 1 and Figure 1: Markdown, CSV, SVG, PNG and the page."""

from collections.abc import Sequence
from pathlib import Path

from skipless.experiments.supervised.cells import CellRuns, optimizers_of
from skipless.experiments.supervised.page import page_html
from skipless.experiments.supervised.table import table1_csv, table1_markdown
from skipless.report.labels import FILE_KINDS, OptimizerLabel
from skipless.report.pages.write_page import write_report as write_page
from skipless.report.run_records import Setting
from skipless.report.write_files import drawing


def write_report(
    cells: Sequence[CellRuns],
    out: Path,
    *,
    setting: Setting,
    title: str,
    description: str,
    command: str,
    notes: Sequence[str] = (),
) -> dict[str, Path]:
    """Write Table 1, Figure 1 and the page that shows both.

    Args:
        cells: of Table 1, in the order to show; see `table1_cells`.
        out: folder to write to; made if missing.
        setting: where our numbers come from.
        title: of the page.
        description: a paragraph of plain text under it.
        command: what makes this report again.
        notes: sentences of plain text for the reader who wants to know how far to trust the numbers.

    Returns:
        The path of each file by its name: `table1.md`, `table1.csv`, `figure1.svg`, `figure1.png`, `table1.html`, and
        `index.html` where no other page has this name.

    Raises:
        InputError: if matplotlib is missing or `out` cannot be written.
    """
    figure = drawing("skipless.experiments.supervised.figure")
    panels: dict[OptimizerLabel, str] = {
        optimizer: figure.panel_svg(cells, setting, optimizer) for optimizer in optimizers_of(cells)
    }
    contents = {
        "table1.md": table1_markdown(cells, setting),
        "table1.csv": table1_csv(cells, setting),
        "figure1.svg": figure.figure1_svg(cells, setting),
        "figure1.png": figure.figure1_png(cells, setting),
    }
    page = page_html(
        cells,
        panels,
        setting=setting,
        title=title,
        description=description,
        command=command,
        notes=notes,
        files={name: FILE_KINDS[Path(name).suffix] for name in contents},
    )
    return write_page(out, "table1", contents, page)
