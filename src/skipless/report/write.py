"""The one entry: every file of a report, each written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from skipless.errors import InputError
from skipless.report.page import page_html
from skipless.report.records import OPTIMIZERS, Cell, OptimizerName, Setting
from skipless.report.table import table1_csv, table1_markdown


def write_report(
    cells: Sequence[Cell],
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
        The path of each file by its name: `table1.md`, `table1.csv`, `figure1.svg`, `figure1.png`, `index.html`.

    Raises:
        InputError: if matplotlib is missing or `out` cannot be written.
    """
    try:
        from skipless.report.figure import figure1_png, figure1_svg, panel_svg  # noqa: PLC0415 - matplotlib is optional
    except ModuleNotFoundError as error:
        raise InputError("the report needs matplotlib; install it with: pip install 'skipless[demo]'") from error
    panels: dict[OptimizerName, str] = {optimizer: panel_svg(cells, setting, optimizer) for optimizer in OPTIMIZERS}
    contents = {
        "table1.md": table1_markdown(cells, setting).encode(),
        "table1.csv": table1_csv(cells, setting).encode(),
        "figure1.svg": figure1_svg(cells, setting).encode(),
        "figure1.png": figure1_png(cells, setting),
        "index.html": page_html(
            cells, panels, setting=setting, title=title, description=description, command=command, notes=notes
        ).encode(),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        return {name: write_whole(out / name, content) for name, content in contents.items()}
    except OSError as error:
        raise InputError(f"cannot write the report to {out} ({error.strerror}); choose another --out") from error


def write_whole(path: Path, content: bytes) -> Path:
    """Replace `path` in one step, so that a reader never meets half a file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
