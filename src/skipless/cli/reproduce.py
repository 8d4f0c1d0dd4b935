"""`skipless reproduce`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from tyro.conf import Positional

from skipless.errors import InputError
from skipless.recipes.table1 import Scale
from skipless.reproduce import reproduce_dense, reproduce_table1
from skipless.reproduce.assumptions import reproduce_assumptions
from skipless.reproduce.conditioning import ConditioningScale, reproduce_figure6, reproduce_tables
from skipless.reproduce.dense_scale import DENSE
from skipless.reproduce.softmax import reproduce_figure5
from skipless.reproduce.token_graying import reproduce_token_graying

What = Literal[
    "table1", "table2", "table3", "table4", "table5", "table6",
    "figure1", "figure2", "figure3", "figure4", "figure5", "figure6", "figure7", "figure8", "figure9",
    "assumptions", "token-graying",
]  # fmt: skip
AnyScale = Literal["digits", "fashion", "init", "vit-s", "paper", "scenes", "vit_small"]

# Which scales there are, the default first; table1 trains all six models, the conditioning ones three or none.
_SCALES: dict[str, tuple[str, ...]] = {
    "table1": get_args(Scale),
    "figure1": get_args(Scale),
    "table5": get_args(ConditioningScale),
    "table6": get_args(ConditioningScale),
    "figure5": (),
    "figure6": get_args(ConditioningScale),
    "assumptions": ("digits", "fashion", "init"),
    "token-graying": ("digits", "fashion", "vit-s"),
    **dict.fromkeys(DENSE, ("scenes", "vit_small")),
}

# Which options are for which, where not for all.
_SEEDS = ("table1", "figure1", *(what for what in DENSE if what not in ("figure4", "figure7", "figure8")))
_OPTIONS: dict[str, tuple[str, ...]] = {
    "seeds": _SEEDS,
    "tune": ("table1", "figure1", *DENSE),
    "threads": DENSE,
    "points": ("figure2",),
    "pretrain": DENSE,
    "voc": DENSE,
    "coco": DENSE,
    "coco20k": DENSE,
    "ade20k": DENSE,
}


def reproduce(
    what: Positional[What],
    *,
    scale: AnyScale | None = None,
    seeds: int = 1,
    seed: int = 0,
    out: Path | None = None,
    data: str | None = None,
    voc: Path | None = None,
    coco: Path | None = None,
    coco20k: Path | None = None,
    ade20k: Path | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
    points: int | None = None,
    pretrain: bool | None = None,
) -> None:
    """Make a table or figure of the paper: run what is missing, resume what was cut off, write the report.

    Args:
        what: table1 and figure1 (accuracy and loss; one set of runs), table2 to table4, figure2 to figure4 and figure7
            to figure9 (DINO: dense probing, object discovery, pictures, loss; one set of runs), table5, table6 and
            figure6 (conditioning; one set of runs), figure5 (softmax), assumptions (Eqs. 6 and 37, measured), or
            token-graying (a sibling paper's).
        scale: digits (minutes; the default), fashion (Fashion-MNIST), init and vit-s (conditioning before training), or
            paper (says what to run); of DINO's: scenes (generated scenes, the default) or vit_small (the paper's).
        seeds: runs a cell, of table1 and DINO's tables.
        seed: of the one run of each model, of all others.
        out: folder of report and runs; below runs/ by default.
        data: another place for the data; for vit_small ImageNet's folder.
        voc: for vit_small, the folder that holds VOCdevkit.
        coco: for vit_small, the folder that holds train2017, val2017 and stuffthingmaps.
        coco20k: for vit_small, the folder that holds train2014 and the list of COCO20k; --coco by default.
        ade20k: for vit_small, the folder that holds ADEChallengeData2016.
        jobs: runs at a time; by default one a core, or one in all with a GPU.
        threads: CPU threads of each process, of DINO's tables; 1 by default.
        tune: of table1 and DINO's tables: choose each cell's learning rate anew, on images that no run is trained on.
        epochs: another length.
        points: teachers on each curve of figure2.
        pretrain: of DINO's tables: run missing pretrainings here, or say what to run; by default the former at scenes.
    """
    given = {"seeds": seeds > 1, "tune": tune, "threads": threads, "points": points, "pretrain": pretrain is not None}
    given |= {"voc": voc, "coco": coco, "coco20k": coco20k, "ade20k": ade20k}
    for name, value in given.items():
        if value and what not in _OPTIONS[name]:
            raise InputError(f"--{name} is for {', '.join(_OPTIONS[name])}, not for {what}")
    if seed and what in DENSE:
        raise InputError(f"--seed is not for {what}: it has runs of the seeds 0, 1, ...; give --seeds")
    if scale is not None and scale not in _SCALES[what]:
        known = ", ".join(_SCALES[what]) or "none: leave --scale out"
        raise InputError(f"--scale {scale} is not one of {what}'s scales: {known}")
    chosen: Any = scale or next(iter(_SCALES[what]), "digits")
    _refuse_unused(what, chosen, {"data": data, "jobs": jobs, "epochs": epochs})
    folder = out or Path("runs") / (what if what == "figure5" else f"{_FAMILY.get(what, what)}-{chosen}")
    options = {"--scale": scale, "--seeds": seeds if seeds > 1 else None, "--seed": seed or None, "--epochs": epochs}
    options |= {"--data": data, "--voc": voc, "--coco": coco, "--coco20k": coco20k, "--ade20k": ade20k}
    options |= {"--points": points, "--out": out}
    words = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    command = shlex.join(["skipless", "reproduce", what, *words, *["--tune"] * tune])
    runs: dict[str, Any] = {"data": data, "jobs": jobs, "epochs": epochs}
    if what in DENSE:
        folders = {"imagenet": None if data is None else Path(data), "voc": voc, "coco": coco, "coco20k": coco20k}
        files = reproduce_dense(
            what, chosen, folder, seeds=seeds, data={**folders, "ade20k": ade20k}, jobs=jobs,
            threads=1 if threads is None else threads, epochs=epochs, points=points, pretrain=pretrain, tuned=tune,
            command=command,
        )  # fmt: skip
    elif what in ("table1", "figure1"):
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
        files = reproduce_token_graying(chosen, folder, seed=seed, data=data)
    print(next(path for path in files.values() if path.suffix == ".md").read_text(encoding="utf-8"))
    print("\n".join(f"wrote {path}" for path in files.values()))


def _refuse_unused(what: What, scale: str, given: Mapping[str, Any]) -> None:
    """What is measured before training, at pixels of its own, takes neither data nor epochs."""
    unused = ("data", "jobs", "epochs") if what == "figure5" or scale == "vit-s" else ()
    for name in ("jobs", "epochs") if what == "token-graying" and not unused else unused:
        if given[name] is not None:
            raise InputError(f"--{name} changes nothing of {what}{' at vit-s' * (scale == 'vit-s')}: leave it out")


_FAMILY: dict[str, str] = {
    "figure1": "table1",
    **dict.fromkeys(("table5", "table6", "figure6"), "conditioning"),
    **dict.fromkeys(DENSE, "dino"),
}
