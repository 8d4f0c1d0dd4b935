"""Table 1 and Figure 1: supervised training with and without skips and init, by AdamW and by SOAP (section 6.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import PAPER_OPTIMIZERS, OptimizerName
from skipless.experiments.supervised.recipe import Scale, table1_by_data
from skipless.experiments.supervised.remarks import remarks
from skipless.experiments.supervised.scenes import scenes
from skipless.options import Option
from skipless.registry import Experiment, NamedRecipe, Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What Table 1 and Figure 1, which are of one set of runs, can be asked for.

    Attributes:
        scale: digits (minutes), fashion (Fashion-MNIST), or paper (says what to run).
        seeds: runs a cell, with seeds 0, 1, ...
        epochs: another length.
        optimizers: the paper's adamw and soap, or also muon.
        tune: choose each cell's learning rate anew, on images that no run is trained on.
        data: another place for the data.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: Scale = "digits"
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    optimizers: tuple[OptimizerName, ...] = PAPER_OPTIMIZERS
    tune: bool = False
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/table1-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.supervised.run import reproduce_table1

    return reproduce_table1(
        options.scale,
        options.out or Path("runs") / f"table1-{options.scale}",
        seeds=options.seeds,
        data=options.data,
        jobs=options.jobs,
        tune=options.tune,
        epochs=options.epochs,
        optimizers=options.optimizers,
        command=command,
    )


EXPERIMENT = Experiment(
    recipes={
        "table1": NamedRecipe(
            table1_by_data,
            paper="paper",
            remarks=remarks,
            examples=(
                "skipless train table1 --data digits --out runs/s1",
                "skipless train table1 --scale fashion --skip --optimizer adamw --out runs/s2",
            ),
        ),
        "scenes": NamedRecipe(
            scenes,
            remarks=remarks,
            examples=(
                "skipless train scenes --data scenes/ --out runs/v1",
                "skipless train scenes --data scenes/ --skip --epochs 2 --out runs/v2",
            ),
        ),
    },
    reports={
        "table1": Report(
            "Table 1: accuracy of six runs, ours beside the paper's",
            Options,
            _make,
            examples=(
                "skipless reproduce table1",
                "skipless reproduce table1 --scale fashion --seeds 3",
            ),
        ),
        "figure1": Report(
            "Figure 1: training loss of the six runs of Table 1",
            Options,
            _make,
            examples=(
                "skipless reproduce figure1",
                "skipless reproduce figure1 --scale fashion --jobs 2",
            ),
        ),
    },
)
