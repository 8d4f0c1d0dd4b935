"""Table 1 and Figure 1: supervised training with and without skips and init, by AdamW and by SOAP (section 6.1).

| scale | command | hardware, time | the paper | ours |
|---|---|---|---|---|
| digits | `skipless reproduce table1 --scale digits` | see README | | see README |
| fashion | `skipless reproduce table1 --scale fashion --seeds 3` | see README | | see README |
| paper | `skipless reproduce table1 --scale paper --data IMAGENET` | not stated | 61.4 to 80.8 % | not run |
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from skipless.choices import ALL_ROWS, OPTIMIZERS, PAPER_OPTIMIZERS, ROWS, OptimizerName, Row, slug
from skipless.data.config import ImageConfig
from skipless.errors import InputError, did_you_mean
from skipless.init.scheme import SkiplessInit
from skipless.optim.config import OptimizerConfig
from skipless.options import Option
from skipless.recipes.model import ModelConfig
from skipless.recipes.our_init import with_our_init
from skipless.recipes.recipe import ScheduleConfig
from skipless.recipes.supervised import SupervisedRecipe
from skipless.tasks.targets import IMAGENET_TARGETS, SupervisedConfig
from skipless.training.config import FitConfig

Scale = Literal["digits", "fashion", "paper"]


class Cell(NamedTuple):
    """A row and a column of Table 1."""

    row: Row
    optimizer: OptimizerName

    @property
    def slug(self) -> str:
        """Its name as part of a path.

        Example:
            >>> Cell("skipless + init", "soap").slug
            'skipless-init-soap'
        """
        return f"{slug(self.row)}-{self.optimizer}"


CELLS = tuple(Cell(row, name) for row in ALL_ROWS for name in OPTIMIZERS)
PAPER_CELLS = tuple(cell for cell in CELLS if cell.row in ROWS and cell.optimizer in PAPER_OPTIMIZERS)

# The paper's own init for ViT-Base; alpha and beta must suit the width, so the small scales have their own. Their
# attention starts with mean diagonals of 0.99 and more (`skipless init` prints them).
INIT: dict[Scale, SkiplessInit] = {
    "digits": SkiplessInit(alpha=1.0, beta=2.5, c=3.0),
    "fashion": SkiplessInit(alpha=0.1, beta=2.0, c=3.0),
    "paper": SkiplessInit.preset("vit_base"),
}

# Muon's peak learning rates before anybody has tuned them: AdamW's with skips, since updates of both have one size (Liu
# et al. 2025). `--tune` finds each cell's.
MUON_RATE: dict[Scale, float] = {"digits": 1e-3, "fashion": 3e-3, "paper": 4e-3}
_MUON_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)

# Peak learning rates, each cell tuned on its own: the best of the grid of `reproduce table1 --tune` on images held out
# of training, by one run with a seed of its own (LOG.md has the grids). Muon's are not tuned. At scale `paper` AdamW's
# is the recipe's (Xu et al. 2024); SOAP's is not stated anywhere, and its authors' default stands in.
LEARNING_RATE: dict[Scale, dict[Cell, float]] = {
    "digits": {
        Cell("skip", "adamw"): 1e-3,
        Cell("skip", "soap"): 1e-3,
        Cell("skipless", "adamw"): 1e-5,
        Cell("skipless", "soap"): 1e-4,
        Cell("skipless + init", "adamw"): 3e-4,
        Cell("skipless + init", "soap"): 3e-3,
        Cell("skipless + ours", "adamw"): 1e-3,
        Cell("skipless + ours", "soap"): 6e-3,
        **{Cell(row, "muon"): MUON_RATE["digits"] for row in ALL_ROWS},
    },
    "fashion": {
        Cell("skip", "adamw"): 3e-3,
        Cell("skip", "soap"): 1e-2,
        Cell("skipless", "adamw"): 3e-5,
        Cell("skipless", "soap"): 3e-4,
        Cell("skipless + init", "adamw"): 3e-4,
        Cell("skipless + init", "soap"): 2e-3,
        Cell("skipless + ours", "adamw"): 1e-3,
        Cell("skipless + ours", "soap"): 6e-3,
        **{Cell(row, "muon"): MUON_RATE["fashion"] for row in ALL_ROWS},
    },
    "paper": {cell: {"adamw": 4e-3, "soap": 3e-3, "muon": MUON_RATE["paper"]}[cell.optimizer] for cell in CELLS},
}

# What `--tune` tries; LOG.md has what came of it.
GRID: dict[Scale, dict[Cell, tuple[float, ...]]] = {
    "digits": {
        Cell("skip", "adamw"): (3e-4, 1e-3, 3e-3, 1e-2),
        Cell("skip", "soap"): (3e-4, 1e-3, 3e-3, 1e-2),
        Cell("skipless", "adamw"): (3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
        Cell("skipless", "soap"): (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        Cell("skipless + init", "adamw"): (1e-4, 3e-4, 1e-3, 3e-3),
        Cell("skipless + init", "soap"): (1e-3, 3e-3, 1e-2),
        Cell("skipless + ours", "adamw"): (3e-4, 1e-3, 3e-3, 1e-2),
        Cell("skipless + ours", "soap"): (2e-3, 6e-3, 2e-2),
        **{Cell(row, "muon"): _MUON_GRID for row in ALL_ROWS},
    },
    "fashion": {
        Cell("skip", "adamw"): (3e-4, 1e-3, 3e-3, 1e-2),
        Cell("skip", "soap"): (1e-3, 3e-3, 1e-2, 2e-2),
        Cell("skipless", "adamw"): (1e-5, 3e-5, 1e-4, 3e-4),
        Cell("skipless", "soap"): (1e-4, 3e-4, 1e-3, 3e-3),
        Cell("skipless + init", "adamw"): (1e-4, 3e-4, 1e-3),
        Cell("skipless + init", "soap"): (1e-3, 2e-3, 3e-3, 1e-2),
        Cell("skipless + ours", "adamw"): (3e-4, 1e-3, 3e-3, 1e-2),
        Cell("skipless + ours", "soap"): (2e-3, 6e-3, 2e-2),
        **{Cell(row, "muon"): _MUON_GRID for row in ALL_ROWS},
    },
}

_SMALL = "vit_tiny_patch16_224"  # timm's entry point; every size in it is overridden below


def table1(
    scale: Scale = "digits",
    row: Row = "skipless + init",
    optimizer: OptimizerName = "soap",
    *,
    seed: int = 0,
    data: str | None = None,
) -> SupervisedRecipe:
    """One of the six runs behind a Table 1, or one by our initialisation or by Muon beside them.

    Args:
        scale: `digits` (8 x 8 images, minutes for all six), `fashion` (Fashion-MNIST) or `paper` (ViT-B, ImageNet-1k).
        row: with skips, without, without and initialised as the paper says, or as we do.
        optimizer: `adamw` or `soap`; or `muon`, which the paper has not, at a rate that is not tuned.
        seed: of weights, order and augmentation.
        data: another place for the scale's data: a folder.

    Raises:
        InputError: for a scale, row or optimizer that does not exist, or the scale `paper` without a folder.

    Example:
        >>> table1("digits", "skip", "adamw").model.skip
        True
    """
    cell = Cell(row, optimizer)
    if scale not in INIT or cell not in CELLS:
        raise InputError(
            f"no table1 run {scale!r}, {row!r}, {optimizer!r}; {did_you_mean(scale, INIT)}scales are {', '.join(INIT)}"
        )
    if scale == "paper" and data is None:
        raise InputError("table1 at scale 'paper' needs ImageNet-1k: give its folder (train/, val/) with --data")
    base = {"digits": _digits, "fashion": _fashion, "paper": _paper}[scale](seed, data)
    made = base.with_(
        model__skip=row == "skip",
        model__init=INIT[scale] if row == "skipless + init" else None,
        optimizer__name=optimizer,
        optimizer__lr=LEARNING_RATE[scale][cell],
    )
    return with_our_init(made) if row == "skipless + ours" else made


def table1_by_data(
    scale: Annotated[Scale | None, Option("the one that --data names, digits")] = None,
    row: Row = "skipless + init",
    optimizer: OptimizerName = "soap",
    *,
    seed: int = 0,
    data: Annotated[str | None, Option("the scale's own")] = None,
) -> SupervisedRecipe:
    """Supervised training of a vision transformer: one of the six runs behind Table 1.

    Args:
        scale: digits (8 x 8 images, a minute), fashion (Fashion-MNIST) or paper (ViT-B on ImageNet-1k).
        row: with skips, without, or without and initialised.
        optimizer: adamw, soap, or muon, which the paper has not, at a rate that is not tuned.
        seed: of weights, order and augmentation.
        data: digits, fashion, or a folder: ImageNet-style (train/CLASS/*.jpg, val/CLASS/*.jpg), or Fashion-MNIST's.

    Raises:
        InputError: as `table1` does.

    Example:
        >>> table1_by_data(data="fashion").scale, table1_by_data(data="imagenet/").scale
        ('fashion', 'paper')
    """
    return table1(scale or _scale_of(data), row, optimizer, seed=seed, data=data)


def _scale_of(data: str | None) -> Scale:
    if data in (None, "digits"):
        return "digits"
    if data == "fashion":
        return "fashion"
    from skipless.data.builtin import find_fashion

    return "paper" if find_fashion(Path(str(data)).expanduser()) is None else "fashion"


def _digits(seed: int, data: str | None) -> SupervisedRecipe:
    """12 blocks of width 32 on 8 x 8 digits: 17 tokens, 43 steps an epoch."""
    sizes = {"patch_size": 2, "embed_dim": 32, "depth": 12, "num_heads": 2}
    return SupervisedRecipe(
        name="table1",
        scale="digits",
        model=ModelConfig(_SMALL, kwargs=sizes),
        data=ImageConfig(data or "digits"),
        targets=SupervisedConfig(),
        optimizer=OptimizerConfig(weight_decay=0.05),
        schedule=ScheduleConfig(warmup=0.1),
        fit=FitConfig(epochs=30, batch_size=32, seed=seed, device="cpu"),
    )


def _fashion(seed: int, data: str | None) -> SupervisedRecipe:
    """12 blocks of width 64 on Fashion-MNIST: 17 tokens, 468 steps an epoch."""
    sizes = {"patch_size": 7, "embed_dim": 64, "depth": 12, "num_heads": 2}
    return SupervisedRecipe(
        name="table1",
        scale="fashion",
        model=ModelConfig(_SMALL, kwargs=sizes),
        data=ImageConfig(data or "fashion"),
        targets=SupervisedConfig(),
        optimizer=OptimizerConfig(weight_decay=0.05),
        schedule=ScheduleConfig(warmup=0.1),
        fit=FitConfig(epochs=1, batch_size=128, seed=seed, checkpoint_every=100),
    )


def _paper(seed: int, data: str | None) -> SupervisedRecipe:
    """ViT-Base on ImageNet-1k by the recipe that section 6.1 follows (Xu et al. 2024), without drop path."""
    return SupervisedRecipe(
        name="table1",
        scale="paper",
        model=ModelConfig("vit_base_patch16_224"),
        data=ImageConfig(data or ""),
        targets=IMAGENET_TARGETS,
        optimizer=OptimizerConfig(weight_decay=0.05),
        schedule=ScheduleConfig(warmup=50 / 300, final_lr=1e-6),
        fit=FitConfig(epochs=300, batch_size=4096, accumulation=4, seed=seed, precision="bf16"),
    )
