"""`skipless reproduce`: make the runs behind a table or figure of the paper, and lay ours beside the paper's."""

from skipless.reproduce.assumptions import reproduce_assumptions
from skipless.reproduce.conditioning import reproduce_figure6, reproduce_tables
from skipless.reproduce.dense import reproduce_dense
from skipless.reproduce.softmax import reproduce_figure5
from skipless.reproduce.table1 import reproduce_table1
from skipless.reproduce.token_graying import reproduce_token_graying

__all__ = [
    "reproduce_assumptions",
    "reproduce_dense",
    "reproduce_figure5",
    "reproduce_figure6",
    "reproduce_table1",
    "reproduce_tables",
    "reproduce_token_graying",
]
