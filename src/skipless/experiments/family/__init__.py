"""The family's methods measured: attention that is not plain softmax, and what stands for the skips.

Two reports of one set of cells: `attention` puts other cores into models with skips and without, `shortcuts` compares
ways to do without skips at equal steps and at five times as many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.choices import OptimizerName
from skipless.experiments.family.scales import AttentionKind, AttentionRow, FamilyScale, Method
from skipless.options import Option
from skipless.registry import Experiment, Report


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """What the report on attention can be asked for.

    Attributes:
        scale: digits (minutes a cell) or fashion (Fashion-MNIST).
        attentions: what stands for the softmax.
        rows: with skips, without, without but with the paper's initialisation, or with ours.
        optimizers: by which they are trained, adamw, soap, muon.
        seeds: runs a cell, with seeds 0, 1, ...
        epochs: another length.
        tune: choose each cell's learning rate anew, on images that no run is trained on.
        grid: what is tried by --tune, times the rate that Table 1 has for the row.
        data: another place for the data.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: FamilyScale = "digits"
    attentions: tuple[AttentionKind, ...] = (
        "softmax", "polynomial 1", "polynomial 2", "polynomial 3", "shaped", "orthogonal",
    )  # fmt: skip
    rows: tuple[AttentionRow, ...] = ("skip", "skipless", "skipless + init", "skipless + ours")
    optimizers: tuple[OptimizerName, ...] = ("soap",)
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    grid: tuple[float, ...] = (0.33, 1.0, 3.0)
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/attention-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


@dataclass(frozen=True, kw_only=True)
class ShortcutsOptions:
    """What the report on shortcuts can be asked for.

    Attributes:
        scale: digits (minutes a cell) or fashion (Fashion-MNIST).
        methods: models with skips, with decayed ones, and without; a method of a paper starts as that paper has it, and
            with `+ ours` our MLP and positions stand beside its attention.
        lengths: lengths of training, in those of the scale.
        optimizers: by which they are trained, adamw, soap, muon.
        seeds: runs a cell, with seeds 0, 1, ...
        epochs: another length, of which `lengths` are multiples.
        tune: choose the learning rate of each cell and length anew, on images that no run is trained on.
        grid: what is tried by --tune, times the rate that Table 1 has for the row.
        data: another place for the data.
        out: folder of report and runs.
        jobs: runs at a time.
    """

    scale: FamilyScale = "digits"
    methods: tuple[Method, ...] = (
        "skip", "skip, decayed", "skipless", "skipless + init", "skipless + ours", "V-SkipInit", "E-SPA", "U-SPA",
        "shaped",
    )  # fmt: skip
    lengths: tuple[int, ...] = (1, 5)
    optimizers: tuple[OptimizerName, ...] = ("soap",)
    seeds: int = 1
    epochs: Annotated[int | None, Option("the scale's")] = None
    tune: bool = False
    grid: tuple[float, ...] = (0.33, 1.0, 3.0)
    data: Annotated[str | None, Option("the scale's own", group="data")] = None
    out: Annotated[Path | None, Option("runs/shortcuts-SCALE", group="output")] = None
    jobs: Annotated[int | None, Option("one a core, or one in all with a GPU", group="machine", stated=False)] = None


def _make_attention(options: AttentionOptions, command: str) -> Mapping[str, Path]:
    from skipless.experiments.family.attention import reproduce_attention

    return reproduce_attention(options, options.out or Path("runs") / f"attention-{options.scale}", command=command)


def _make_shortcuts(options: ShortcutsOptions, command: str) -> Mapping[str, Path]:
    from skipless.experiments.family.shortcuts import reproduce_shortcuts

    return reproduce_shortcuts(options, options.out or Path("runs") / f"shortcuts-{options.scale}", command=command)


EXPERIMENT = Experiment(
    reports={
        "attention": Report(
            "attention that is not plain softmax, with skips and without",
            AttentionOptions,
            _make_attention,
            examples=(
                'skipless reproduce attention --attentions softmax shaped --rows skip "skipless + init"',
                "skipless reproduce attention --seeds 3 --tune",
                "skipless reproduce attention --scale fashion --optimizers adamw soap --seeds 3 --tune",
            ),
        ),
        "shortcuts": Report(
            "ways to do without skips, at equal steps and at five times as many",
            ShortcutsOptions,
            _make_shortcuts,
            examples=(
                "skipless reproduce shortcuts --methods skip E-SPA --lengths 1",
                "skipless reproduce shortcuts --seeds 3 --tune",
                "skipless reproduce shortcuts --scale fashion --lengths 1 5 --seeds 3 --tune",
            ),
        ),
    },
)
