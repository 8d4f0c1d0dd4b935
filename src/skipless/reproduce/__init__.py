"""`skipless reproduce`: make the runs behind a table or figure of the paper, and lay ours beside the paper's."""

from skipless.reproduce.table1 import reproduce_table1

__all__ = ["reproduce_table1"]
