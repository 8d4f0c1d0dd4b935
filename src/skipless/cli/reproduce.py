"""`skipless reproduce`."""

import shlex
from pathlib import Path
from typing import Any, Literal, get_args

from tyro.conf import Positional

from skipless.errors import InputError
from skipless.recipes.table1 import Scale
from skipless.reproduce import reproduce_table1
from skipless.reproduce.assumptions import reproduce_assumptions
from skipless.reproduce.conditioning import ConditioningScale, reproduce_figure6, reproduce_tables
from skipless.reproduce.softmax import reproduce_figure5
from skipless.reproduce.token_graying import reproduce_token_graying

What = Literal["table1", "figure1", "table5", "table6", "figure5", "figure6", "assumptions", "token-graying"]
AnyScale = Literal["digits", "fashion", "init", "vit-s", "paper"]

# Which scales there are; table1 trains all six models, the others three or none.
_SCALES: dict[str, tuple[str, ...]] = {
    "table1": get_args(Scale),
    "figure1": get_args(Scale),
    "table5": get_args(ConditioningScale),
    "table6": get_args(ConditioningScale),
    "figure5": (),
    "figure6": get_args(ConditioningScale),
    "assumptions": ("digits", "fashion", "init"),
    "token-graying": ("digits", "fashion", "vit-s"),
}


def reproduce(
    what: Positional[What],
    *,
    scale: AnyScale | None = None,
    seeds: int = 1,
    seed: int = 0,
    out: Path | None = None,
    data: str | None = None,
    jobs: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
) -> None:
    """Make a table or figure of the paper: run what is missing, resume what was cut off, write the report.

    Args:
        what: table1 and figure1 (accuracy and loss; one set of runs), table5, table6 and figure6 (conditioning; one set
            of runs), figure5 (softmax), assumptions (Eqs. 6 and 37, measured), or token-graying (a sibling paper's).
        scale: digits (minutes; the default), fashion (Fashion-MNIST), init and vit-s (conditioning before training), or
            paper (says what to run).
        seeds: runs a cell, of table1.
        seed: of the one run of each model, of all others.
        out: folder of report and runs; below runs/ by default.
        data: another place for the data.
        jobs: runs at a time; by default one a core, or one in all with a GPU.
        tune: of table1: choose each cell's learning rate anew on images held out of training.
        epochs: another length.
    """
    for name, given in (("--seeds", seeds > 1), ("--tune", tune)):
        if given and what not in ("table1", "figure1"):
            raise InputError(f"{name} is for table1 and figure1, not for {what}")
    if scale is not None and scale not in _SCALES[what]:
        known = ", ".join(_SCALES[what]) or "none: leave --scale out"
        raise InputError(f"--scale {scale} is not one of {what}'s scales: {known}")
    chosen: Any = scale or "digits"
    family = {"figure1": "table1", "table5": "conditioning", "table6": "conditioning", "figure6": "conditioning"}
    name = family.get(what, what)
    folder = out or Path("runs") / (name if what == "figure5" else f"{name}-{chosen}")
    options = {"--scale": scale, "--seeds": seeds if seeds > 1 else None, "--seed": seed or None, "--epochs": epochs}
    options |= {"--data": data, "--out": out}
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    command = shlex.join(["skipless", "reproduce", what, *given, *["--tune"] * tune])
    runs: dict[str, Any] = {"data": data, "jobs": jobs, "epochs": epochs}
    if what in ("table1", "figure1"):
        files = reproduce_table1(chosen, folder, seeds=seeds, tune=tune, command=command, **runs)
    elif what in ("table5", "table6"):
        files = reproduce_tables(what, chosen, folder, seed=seed, command=command, **runs)
    elif what == "figure5":
        files = reproduce_figure5(folder, seed=seed)
    elif what == "figure6":
        files = reproduce_figure6(chosen, folder, seed=seed, **runs)
    elif what == "assumptions":
        files = reproduce_assumptions(chosen, folder, seed=seed, **runs)
    else:
        files = reproduce_token_graying(chosen, folder, seed=seed)
    print(next(path for path in files.values() if path.suffix == ".md").read_text(encoding="utf-8"))
    print("\n".join(f"wrote {path}" for path in files.values()))
