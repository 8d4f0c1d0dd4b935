"""The report on attention that is not plain softmax."""

from pathlib import Path

from skipless.errors import InputError
from skipless.experiments.family import AttentionOptions
from skipless.experiments.family.paper import ATTENTION
from skipless.experiments.family.recipe import FamilyCell
from skipless.experiments.family.report import Shown, write_family
from skipless.experiments.family.runs import measured_cells
from skipless.experiments.family.tables import attention_table, paper_table, token_table
from skipless.experiments.family.text import ATTENTION_DESCRIPTION, ATTENTION_TITLE, attention_differences
from skipless.report.write_files import drawing


def reproduce_attention(options: AttentionOptions, out: Path, *, command: str = "") -> dict[str, Path]:
    """Accuracy by attention, with skips and without: run what is missing, write the report.

    Args:
        options: which attentions, rows, optimizers and seeds.
        out: folder of the report; the runs go into `out/runs`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if not (options.attentions and options.rows and options.optimizers):
        raise InputError("--attentions, --rows and --optimizers: give at least one of each")
    cells = [
        FamilyCell(attention, row, optimizer)
        for optimizer in options.optimizers
        for attention in options.attentions
        for row in options.rows
    ]
    figures = drawing("skipless.experiments.family.figures")
    found, first, images = measured_cells(cells, options, out)
    shown = Shown(
        "attention",
        ATTENTION_TITLE,
        ATTENTION_DESCRIPTION,
        tables=(attention_table(found), token_table(found), paper_table(ATTENTION)),
        pictures={
            "attention-accuracy.png": figures.attention_accuracy_png(found),
            "attention-loss.png": figures.attention_loss_png(found),
        },
        captions=figures.CAPTIONS,
        differences=attention_differences(found),
    )
    return write_family(shown, found, out, first=first, images=images, asked=options, command=command)
