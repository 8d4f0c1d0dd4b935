"""`skipless reproduce`."""

import shlex
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from skipless.recipes.table1 import Scale
from skipless.reproduce import reproduce_table1


def reproduce(
    what: Positional[Literal["table1", "figure1"]],
    *,
    scale: Scale = "digits",
    seeds: int = 1,
    out: Path | None = None,
    data: str | None = None,
    jobs: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
) -> None:
    """Make a table or figure of the paper: run what is missing, resume what was cut off, write the report.

    Args:
        what: table1 and figure1 come from the same six runs, and are written together.
        scale: digits (minutes), fashion (Fashion-MNIST) or paper (says what to run).
        seeds: runs a cell.
        out: folder of report and runs; runs/table1-SCALE by default.
        data: another place for the data.
        jobs: runs at a time; by default one a core, or one in all with a GPU.
        tune: choose each cell's learning rate anew on images held out of training.
        epochs: another length.
    """
    folder = out or Path("runs") / f"table1-{scale}"
    options = {"--seeds": seeds if seeds > 1 else None, "--epochs": epochs, "--data": data, "--out": out}
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    command = shlex.join(["skipless", "reproduce", what, "--scale", scale, *given, *["--tune"] * tune])
    files = reproduce_table1(
        scale, folder, seeds=seeds, data=data, jobs=jobs, tune=tune, epochs=epochs, command=command
    )
    print(files["table1.md"].read_text(encoding="utf-8"))
    print(f"the page: {files['index.html']}\nfigure 1: {files['figure1.png']}")
