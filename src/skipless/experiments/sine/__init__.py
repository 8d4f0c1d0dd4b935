"""Sine-activated LoRA (arXiv 2403.19243) and its quantised form (2505.21895), beside LoRA at alpha' and DoRA."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import Row
from skipless.experiments.sine.scales import AdapterMethod, SineScale
from skipless.options import Option
from skipless.registry import Experiment, Report


@dataclass(frozen=True, kw_only=True)
class SineOptions:
    """What the report on sine-activated adapters can be asked for.

    Attributes:
        scale: digits (minutes) or fashion (Fashion-MNIST).
        methods: lora, lora at alpha', sine, dora; the head alone and all weights stand beside them.
        ranks: of the adapters.
        bits: of the entries of A and B after training; 32 is as trained.
        frequencies: omega of the sine, and of alpha'.
        row: the model that is fine-tuned, of Table 1.
        seeds: runs a cell, with seeds 0, 1, ..., each of a model trained with that seed.
        epochs: another length of fine-tuning.
        tune: choose each cell's learning rate anew, on images that no run is trained on.
        grid: what is tried by --tune, times the rate that a method starts from.
        data: another place for the data.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: SineScale = "digits"
    methods: tuple[AdapterMethod, ...] = ("lora", "lora, alpha'", "sine", "dora")
    ranks: tuple[int, ...] = (1, 4, 16)
    bits: tuple[int, ...] = (32, 4, 2)
    frequencies: tuple[float, ...] = (20.0, 200.0)
    row: Row = "skip"
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    grid: tuple[float, ...] = (0.1, 0.33, 1.0, 3.0)
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/sine-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make(options: SineOptions, command: str) -> Mapping[str, Path]:
    from skipless.experiments.sine.run import reproduce_sine

    return reproduce_sine(options, options.out or Path("runs") / f"sine-{options.scale}", command=command)


EXPERIMENT = Experiment(
    reports={
        "sine": Report(
            "sine-activated LoRA beside LoRA, LoRA at alpha' and DoRA, at few ranks and few bits",
            SineOptions,
            _make,
            examples=(
                "skipless reproduce sine --methods lora sine --ranks 4 --frequencies 200",
                "skipless reproduce sine --seeds 3 --tune",
                "skipless reproduce sine --scale fashion --ranks 1 2 4 8 16 --bits 32 5 4 3 2 1 --seeds 3 --tune",
            ),
        ),
    },
    kinds=("skipless.experiments.sine.recipe",),
)
