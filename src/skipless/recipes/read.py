"""Read back what a run folder was made by, whichever experiment it was."""

from pathlib import Path
from typing import Any

from skipless.recipes.dino import DinoRecipe
from skipless.recipes.recipe import Recipe, recipe_values
from skipless.training.record import fingerprint, refuse_other


def read_any_recipe(folder: Path) -> Recipe | DinoRecipe:
    """The recipe of a run folder.

    Raises:
        InputError: if the folder is no run folder, or was written by another version.
    """
    values = recipe_values(folder)
    return DinoRecipe.from_json(values) if values.get("name") == "dino" else Recipe.from_json(values)


def what_counts(recipe: Recipe | DinoRecipe) -> dict[str, Any]:
    """A recipe, as JSON, without what changes no number: devices, workers, how often to log."""
    return fingerprint(recipe.as_json(), recipe.fit, 0)


def refuse_other_recipe(folder: Path, recipe: Recipe | DinoRecipe) -> None:
    """Raise `InputError`, saying what differs, unless a run folder is this recipe's."""
    refuse_other(what_counts(read_any_recipe(folder)), what_counts(recipe), str(folder))
