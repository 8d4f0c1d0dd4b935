"""The three runs behind Tables 5 and 6, Figure 6 and the assumptions: Table 1's by SOAP, measured as they train."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from skipless.choices import ROWS, Row, slug
from skipless.data.config import IMAGENET_TRAIN
from skipless.errors import InputError
from skipless.experiments.conditioning.scales import RunScale
from skipless.recipes.command import training_command
from skipless.recipes.read import refuse_other_recipe
from skipless.recipes.recipe import Recipe
from skipless.registry import recipe_named
from skipless.sweep import Job, run_jobs

SHARE = 15  # measurements of a run: the paper's tables have shares of the training in fifteenths


def model_recipe(scale: RunScale, row: Row, *, seed: int = 0, data: str | None = None) -> Recipe:
    """One of the three runs, as Table 1 has it, or the language model that is compared in Table 7."""
    if scale == "language":
        reading = "sharp" if row == "skipless + init" else "paper"
        return recipe_named("language")("tiny", row, "soap", reading=reading, seed=seed, data=data)
    return recipe_named("table1")(scale, row, "soap", seed=seed, data=data)


def planned(
    scale: RunScale, *, seed: int, data: str | None, epochs: int | None, steps: int | None = None
) -> dict[Row, Recipe]:
    """The three runs of a scale, each measured at every fifteenth of its training."""
    recipes: dict[Row, Recipe] = {}
    for row in ROWS:
        recipe = model_recipe(scale, row, seed=seed, data=data).with_(fit__epochs=epochs, fit__steps=steps)
        samples = IMAGENET_TRAIN if scale == "paper" else len(recipe.load().train)
        recipes[row] = recipe.with_(fit__measure_every=max(1, recipe.fit.total_steps(samples) // SHARE))
    return recipes


def made(recipes: Mapping[Row, Recipe], scale: RunScale, out: Path, jobs: int | None) -> dict[Row, Path]:
    """Their folders, once they are finished.

    Raises:
        InputError: if a run failed, or, at the paper's scale, is still to be made.
    """
    folders: dict[Row, Path] = {
        row: out / "runs" / f"{slug(row)}-soap-seed{recipe.fit.seed}" for row, recipe in recipes.items()
    }
    if scale == "paper":
        missing: list[Row] = [row for row in recipes if not (folders[row] / "result.json").exists()]
        if missing:
            commands = [_measured_command(recipes[row], folders[row]) for row in missing]
            head = (
                "The paper trains ViT-S by DINO for 300 epochs (days on 8 GPUs a row); nearest is Table 1's ViT-B. "
                f"{len(missing)} measured runs are not finished; run each of"
            )
            raise InputError("\n  ".join([head, *commands]))
        for row, recipe in recipes.items():
            refuse_other_recipe(folders[row], recipe)
    else:
        samples = len(next(iter(recipes.values())).load().train)
        run_jobs(
            [Job((row, "SOAP"), one, folders[row], one.fit.total_steps(samples)) for row, one in recipes.items()],
            parallel=jobs,
        )
    unmeasured = [str(folder) for folder in folders.values() if not (folder / "measurements.jsonl").exists()]
    if unmeasured:
        raise InputError(f"{unmeasured[0]} was trained without --measure-every; move it away, or change --out")
    return folders


def _measured_command(recipe: Recipe, folder: Path) -> str:
    return f"{training_command(recipe, folder)} {shlex.join(['--measure-every', str(recipe.fit.measure_every)])}"
