"""Read back what a run folder was made by, whichever experiment it was."""

import json
from pathlib import Path

from skipless.errors import InputError
from skipless.recipes.dino import DinoRecipe
from skipless.recipes.recipe import Recipe


def read_any_recipe(folder: Path) -> Recipe | DinoRecipe:
    """The recipe of a run folder.

    Raises:
        InputError: if the folder is no run folder, or was written by another version.
    """
    try:
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]
        name = values["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no run folder of `skipless train` (run.json: {error})") from error
    return DinoRecipe.from_json(values) if name == "dino" else Recipe.from_json(values)
