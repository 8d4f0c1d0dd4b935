"""The report on shortcuts: models with skips, with decayed ones, and ways to do without."""

from pathlib import Path

from skipless.errors import InputError, did_you_mean
from skipless.experiments.family import ShortcutsOptions
from skipless.experiments.family.paper import SHORTCUTS
from skipless.experiments.family.recipe import METHODS, FamilyCell
from skipless.experiments.family.report import Shown, write_family
from skipless.experiments.family.runs import measured_cells
from skipless.experiments.family.tables import paper_table, shortcuts_table, steps_table, token_table
from skipless.experiments.family.text import SHORTCUTS_DESCRIPTION, SHORTCUTS_TITLE, shortcut_differences
from skipless.report.write_files import drawing


def reproduce_shortcuts(options: ShortcutsOptions, out: Path, *, command: str = "") -> dict[str, Path]:
    """Accuracy by method and length of training: run what is missing, write the report.

    Args:
        options: which methods, lengths, optimizers and seeds.
        out: folder of the report; the runs go into `out/runs`.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    if not (options.methods and options.lengths and options.optimizers):
        raise InputError("--methods, --lengths and --optimizers: give at least one of each")
    for method in options.methods:
        if method not in METHODS:
            raise InputError(f"no method {method!r}; {did_you_mean(method, METHODS)}there is {', '.join(METHODS)}")
    cells = [
        FamilyCell(*METHODS[method], optimizer, length)
        for optimizer in options.optimizers
        for method in options.methods
        for length in sorted(set(options.lengths))
    ]
    figures = drawing("skipless.experiments.family.figures")
    found, first, images = measured_cells(cells, options, out)
    shown = Shown(
        "shortcuts",
        SHORTCUTS_TITLE,
        SHORTCUTS_DESCRIPTION,
        tables=(shortcuts_table(found), steps_table(found), token_table(found), paper_table(SHORTCUTS)),
        pictures={
            "shortcuts-accuracy.png": figures.shortcuts_accuracy_png(found),
            "shortcuts-epochs.png": figures.shortcuts_epochs_png(found),
            "shortcuts-loss.png": figures.shortcuts_loss_png(found),
        },
        captions=figures.CAPTIONS,
        differences=shortcut_differences(found),
    )
    return write_family(shown, found, out, first=first, images=images, asked=options, command=command)
