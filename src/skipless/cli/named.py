"""What `train` and `doctor` ask for alike: a recipe by name, and threads."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch

from skipless import recipes
from skipless.data.builtin import find_fashion
from skipless.errors import InputError
from skipless.recipes.dino import DinoScale
from skipless.recipes.table1 import OptimizerName, Row, Scale

RecipeName = Literal["table1", "scenes", "dino"]
AnyScale = Literal["digits", "fashion", "paper", "vit_small", "scenes"]


def named_recipe(
    name: RecipeName,
    scale: Any,
    data: str | None,
    optimizer: OptimizerName | None,
    *,
    skip: bool,
    init: bool,
    seed: int = 0,
    depth: int | None = None,
) -> recipes.Recipe | recipes.DinoRecipe:
    """The recipe that a command starts from.

    Raises:
        InputError: for what the recipe does not have.
    """
    row: Row = "skip" if skip else "skipless + init" if init else "skipless"
    scales: dict[str, tuple[str, ...]] = {"table1": get_args(Scale), "dino": get_args(DinoScale), "scenes": ("scenes",)}
    if scale is not None and scale not in scales[name]:
        raise InputError(f"--scale {scale} is not one of {name}'s: {', '.join(scales[name])}")
    if depth is not None and name != "dino":
        raise InputError(f"--depth is for dino, not for {name}")
    if name == "dino":
        return recipes.dino(scale or "vit_small", row, optimizer, depth=depth, seed=seed, data=data)
    if name == "scenes":
        return recipes.scenes(row, optimizer or "soap", seed=seed, data=data)
    return _table1(scale, data, row, optimizer or "soap", seed)


def _table1(scale: Scale | None, data: str | None, row: Row, optimizer: OptimizerName, seed: int) -> recipes.Recipe:
    """--data names the scale where --scale does not."""
    if scale is None:
        scale = "digits" if data in (None, "digits") else "fashion" if data == "fashion" else "paper"
        if data is not None and scale == "paper" and find_fashion(Path(data).expanduser()) is not None:
            scale = "fashion"
    return recipes.table1(scale, row, optimizer, seed=seed, data=data)


def use_threads(threads: int | None) -> None:
    """Set the CPU threads of this process; None leaves them.

    Raises:
        InputError: for less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads {threads}: give at least 1")
    torch.set_num_threads(threads)
