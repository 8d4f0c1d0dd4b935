"""The command that makes a run on the eight GPUs of one machine."""

import shlex
from pathlib import Path

from skipless.recipes.recipe import Recipe

LAUNCH = ("torchrun", "--nproc-per-node", "8", "-m", "skipless", "train")


def training_command(recipe: Recipe, out: Path, *more: object) -> str:
    """The words to type for a named recipe's run.

    Args:
        recipe: of a named recipe, changed in nothing but what stands in the command.
        out: the run folder.
        more: words that the recipe needs besides.
    """
    words = [*LAUNCH, recipe.name, "--scale", recipe.scale, "--data", recipe.data.data]
    words += ["--skip" if recipe.model.skip else "--no-skip", "--init" if recipe.model.init else "--no-init"]
    init, fit = recipe.model.init, recipe.fit
    words += ["--ours"] if init is not None and init.attention_diagonal is not None else []
    length = ("--epochs", fit.epochs) if fit.steps is None else ("--steps", fit.steps)
    words += ["--optimizer", recipe.optimizer.name, *more, *length]
    return shlex.join(map(str, [*words, "--seed", recipe.fit.seed, "--out", out]))
