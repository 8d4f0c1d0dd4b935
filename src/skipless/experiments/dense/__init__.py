"""Tables 2 to 4, Figures 2 to 4 and 7 to 9: DINO with and without skips, and what its dense features are worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from skipless.experiments.dense.recipe import DinoScale, dino
from skipless.experiments.dense.remarks import remarks
from skipless.experiments.dense.what import DENSE, PICTURES, TITLES, DenseWhat
from skipless.options import Option
from skipless.registry import Experiment, NamedRecipe, Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every table and figure of this room can be asked for; they share runs and evaluations.

    Attributes:
        scale: scenes (generated scenes, hours on two cores) or vit_small (the paper's, with its data).
        epochs: another length of pretraining.
        tune: choose each model's and optimizer's learning rate anew, by k-NN.
        pretrain: run missing pretrainings here, or say what to run.
        data: ImageNet's folder, to pretrain on.
        voc: the folder that holds VOCdevkit.
        coco: the folder that holds train2017, val2017 and stuffthingmaps.
        coco20k: the folder that holds train2014 and the list of COCO20k.
        ade20k: the folder that holds ADEChallengeData2016.
        out: folder of reports, data, runs and evaluations.
        jobs: runs at a time.
        threads: CPU threads of each process.
    """

    scale: DinoScale = "scenes"
    epochs: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    pretrain: Annotated[bool | None, Option("yes at scenes, no at vit_small", stated=False)] = None
    data: Annotated[Path | None, Option("generated at scenes, required at vit_small", group="data")] = None
    voc: Annotated[Path | None, Option("as --data", group="data")] = None
    coco: Annotated[Path | None, Option("as --data", group="data")] = None
    coco20k: Annotated[Path | None, Option("--coco", group="data")] = None
    ade20k: Annotated[Path | None, Option("as --data", group="data")] = None
    out: Annotated[Path | None, Option("runs/dino-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None
    threads: Annotated[int, Option(group="machine", stated=False)] = 1


@dataclass(frozen=True, kw_only=True)
class SeededOptions(Options):
    """With several runs a cell.

    Attributes:
        seeds: runs a cell, with seeds 0, 1, ...
    """

    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class CurveOptions(SeededOptions):
    """With curves through pretraining.

    Attributes:
        points: teachers on each curve.
    """

    points: Annotated[int | None, Option("3 at scenes, 5 at vit_small")] = None


def _make(what: DenseWhat, options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.dense.run import reproduce_dense

    folders = {"voc": options.voc, "coco": options.coco, "coco20k": options.coco20k, "ade20k": options.ade20k}
    return reproduce_dense(
        what,
        options.scale,
        options.out or Path("runs") / f"dino-{options.scale}",
        seeds=options.seeds if isinstance(options, SeededOptions) else 1,
        data={"imagenet": options.data, **folders},
        jobs=options.jobs,
        threads=options.threads,
        epochs=options.epochs,
        points=options.points if isinstance(options, CurveOptions) else None,
        pretrain=options.pretrain,
        tuned=options.tune,
        command=command,
    )


def _options(what: DenseWhat) -> type[Options]:
    return CurveOptions if what == "figure2" else Options if what in PICTURES else SeededOptions


EXPERIMENT = Experiment(
    recipes={
        "dino": NamedRecipe(
            dino,
            paper="vit_small",
            remarks=remarks,
            examples=(
                "skipless train dino --data imagenet/ --out runs/d1",
                "skipless train dino --scale scenes --data scenes/ --skip --out runs/d2",
            ),
        )
    },
    reports={
        what: Report(
            TITLES[what],
            _options(what),
            partial(_make, what),
            examples=(
                f"skipless reproduce {what}",
                f"skipless reproduce {what} --scale vit_small --data IMAGENET --voc VOC --coco COCO --ade20k ADE20K",
            ),
        )
        for what in DENSE
    },
)
