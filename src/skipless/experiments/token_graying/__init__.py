"""Token Graying (Always Skip Attention, arXiv 2505.01996): how it conditions the tokens that enter a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.experiments.token_graying.scales import GrayingScale
from skipless.options import Option, refuse_given
from skipless.registry import Experiment, Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What it can be asked for.

    Attributes:
        scale: digits and fashion at validation images, vit-s at images of N(0, 1) pixels; nothing is trained.
        seed: of the weights.
        data: another place for the data.
        out: folder of the report.
    """

    scale: GrayingScale = "digits"
    seed: int = 0
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/token-graying-SCALE", group="output")] = None


def _make(options: Options, command: str) -> Mapping[str, Path]:
    from skipless.experiments.token_graying.run import reproduce_token_graying

    if options.scale == "vit-s":  # it is measured at pixels of its own
        refuse_given("token-graying at vit-s", data=options.data)
    out = options.out or Path("runs") / f"token-graying-{options.scale}"
    return reproduce_token_graying(options.scale, out, seed=options.seed, data=options.data, command=command)


EXPERIMENT = Experiment(
    reports={
        "token-graying": Report(
            "Token Graying: condition number of the tokens that enter the first block, by epsilon",
            Options,
            _make,
            examples=("skipless reproduce token-graying", "skipless reproduce token-graying --scale vit-s"),
        )
    },
)
