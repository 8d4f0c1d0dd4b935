"""What few bits cost models with skips and without. The paper has none; its authors' later paper (2605.25880) does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import PAPER_OPTIMIZERS, OptimizerName
from skipless.experiments.quantisation.scales import QuantisationRow, QuantisationScale
from skipless.options import Option
from skipless.registry import Experiment, Report
from skipless.studies.config import QuantisationConfig


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the report of few bits can be asked for.

    Attributes:
        scale: digits (minutes), fashion (hours), scenes (generated scenes) or language (Table 7's tiny model).
        rows: models; the rotated one is the residual model, turned.
        optimizers: by which they are trained, adamw, soap, muon.
        precisions: bits of weights and activations, W8A6.
        static: find ranges of activations once, on training data, a range a tensor; else each token has its own.
        seeds: runs a cell, with seeds 0, 1, ...
        epochs: another length.
        steps: another length, at scale language.
        data: another place for the data; a folder of scenes or a text at these scales.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: QuantisationScale = "digits"
    rows: tuple[QuantisationRow, ...] = ("skip", "skip, rotated", "skipless + init", "skipless + ours")
    optimizers: tuple[OptimizerName, ...] = PAPER_OPTIMIZERS
    precisions: tuple[str, ...] = QuantisationConfig.precisions
    static: bool = False
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    steps: Annotated[int | None, Option("300")] = None
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/quantisation-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.quantisation.run import reproduce_quantisation

    return reproduce_quantisation(
        options, options.out or Path("runs") / f"quantisation-{options.scale}", command=command
    )


EXPERIMENT = Experiment(
    reports={
        "quantisation": Report(
            "what few bits cost models with skips, rotated, and without skips",
            Options,
            _make,
            examples=(
                "skipless reproduce quantisation --seeds 3",
                "skipless reproduce quantisation --scale fashion --seeds 3 --optimizers soap",
                "skipless reproduce quantisation --scale language --seeds 3",
            ),
        ),
    },
)
