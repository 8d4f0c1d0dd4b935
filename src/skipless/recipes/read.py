"""Read back what a run folder was made by, whichever kind of recipe it was."""

import json
from pathlib import Path
from typing import Any

from skipless.errors import InputError, did_you_mean
from skipless.recipes.kinds import Recipe
from skipless.training.run_folder.fingerprint import check_fingerprint, fingerprint


def read_recipe(folder: Path | str) -> Recipe:
    """The recipe of a run folder, of whichever kind.

    Raises:
        InputError: if the folder is no run folder, or was written by another version.
    """
    folder = Path(folder)
    try:
        values = dict(json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"])
    except OSError as error:
        near, what = near_run(folder), error.strerror or error
        raise InputError(
            f"{str(folder)!r} is no run folder of `skipless train` (run.json: {what}){near and f'; {near}'}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no run folder of `skipless train` (run.json: {error})") from error
    return Recipe.from_json(values)


def near_run(folder: Path) -> str:
    """A remedy for an error message: which run was meant by a folder that is none; nothing where none is near."""
    try:
        if inside := sorted(str(file.parent) for file in folder.glob("*/run.json")):
            return f"it holds runs: name one, {inside[0]}"
        beside = [file.parent.name for file in folder.parent.glob("*/run.json")]
    except OSError:
        return ""
    question = did_you_mean(folder.name, beside).strip()  # of names alone: folders of one place share most of a path
    start, _, name = question.rpartition(" ")
    return f"{start} {folder.parent / name}" if question else ""


read_any_recipe = read_recipe  # its name while there were two readers


def what_counts(recipe: Recipe) -> dict[str, Any]:
    """A recipe, as JSON, without what changes no number: devices, workers, how often to log."""
    return fingerprint(recipe.as_json(), recipe.fit, 0)


def refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise `InputError`, saying what differs, unless a run folder is this recipe's."""
    check_fingerprint(what_counts(read_recipe(folder)), what_counts(recipe), str(folder))
