"""Accuracy and token similarity by depth: models of 12 to 144 blocks, with skips and without. The paper has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import OptimizerName
from skipless.experiments.depth.scales import DepthRow, DepthScale
from skipless.options import Option
from skipless.registry import Experiment, Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the depth report can be asked for.

    Attributes:
        scale: digits (minutes to an hour), fashion (hours) or scenes (generated scenes, a day).
        depths: numbers of blocks.
        rows: models.
        optimizers: by which they are trained, adamw, soap, muon.
        seeds: runs a cell, with seeds 0, 1, ...
        epochs: another length.
        tune: choose each cell's learning rate anew, on images that no run is trained on.
        data: another place for the data; at scenes a folder that `skipless data scenes --layout imagenet` wrote.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: DepthScale = "digits"
    depths: tuple[int, ...] = (12, 24, 36, 72)
    rows: tuple[DepthRow, ...] = ("skip", "skip + positions", "skipless", "skipless + init", "skipless + ours")
    optimizers: tuple[OptimizerName, ...] = ("soap",)
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/depth-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.depth.run import reproduce_depth

    return reproduce_depth(options, options.out or Path("runs") / f"depth-{options.scale}", command=command)


EXPERIMENT = Experiment(
    reports={
        "depth": Report(
            "accuracy and token similarity by depth, ours beside the paper's initialisation",
            Options,
            _make,
            examples=(
                "skipless reproduce depth --depths 12 36",
                "skipless reproduce depth --scale fashion --seeds 3 --tune",
                "skipless reproduce depth --depths 36 --optimizers soap muon --tune",
            ),
        ),
    },
)
