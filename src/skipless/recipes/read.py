"""Read back what a run folder was made by, whichever experiment it was."""

from pathlib import Path

from skipless.recipes.dino import DinoRecipe
from skipless.recipes.recipe import Recipe, recipe_values


def read_any_recipe(folder: Path) -> Recipe | DinoRecipe:
    """The recipe of a run folder.

    Raises:
        InputError: if the folder is no run folder, or was written by another version.
    """
    values = recipe_values(folder)
    return DinoRecipe.from_json(values) if values.get("name") == "dino" else Recipe.from_json(values)
