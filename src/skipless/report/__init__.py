"""Tables, figures and pages made from the folders that runs leave behind."""

from skipless.report.records import (
    PAPER_SETTING,
    PAPER_TABLE1,
    Cell,
    OptimizerName,
    Row,
    Run,
    Setting,
    read_run,
    table1_cells,
)
from skipless.report.write import write_report

__all__ = [
    "PAPER_SETTING",
    "PAPER_TABLE1",
    "Cell",
    "OptimizerName",
    "Row",
    "Run",
    "Setting",
    "read_run",
    "table1_cells",
    "write_report",
]
