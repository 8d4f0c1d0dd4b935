"""What is told before a run whose data is not what its scale is made for. It may be meant, so it is not refused."""

from pathlib import Path

from skipless.data.config import ImageConfig
from skipless.recipes.supervised import SupervisedRecipe

OWN_SIZE = {"digits": 8, "fashion": 28}


def remarks(recipe: SupervisedRecipe) -> list[str]:
    """Sentences about a recipe of this room; none where its data is its scale's own.

    Example:
        >>> from skipless.experiments.supervised.recipe import table1
        >>> remarks(table1("digits")), len(remarks(table1("digits", data="fashion")))
        ([], 1)
    """
    data, scenes = recipe.data.data, _holds_scenes(recipe.data)
    if recipe.name == "scenes":
        return [] if scenes else [f"`scenes` is made for generated scenes, and {data!r} holds none"]
    if recipe.scale == "paper":
        return [f"{data!r} holds generated scenes; `skipless train scenes` is made for them"] if scenes else []
    if _named(recipe.data) == recipe.scale:
        return []
    patch, own = recipe.model.kwargs["patch_size"], OWN_SIZE[recipe.scale]
    size = recipe.data.image_size or OWN_SIZE.get(_named(recipe.data), 224)
    return [
        f"scale {recipe.scale!r} is made for {recipe.scale!r}: model, length and learning rate were chosen for it, not "
        f"for {data!r}; images have {size} pixels and {_tokens(size, patch)} tokens, not {own} and "
        f"{_tokens(own, patch)}"
    ]


def _tokens(size: int, patch: int) -> int:
    return (size // patch) ** 2 + 1


def _named(config: ImageConfig) -> str:
    """`digits`, `fashion`, also where a folder holds it, or nothing."""
    from skipless.data.builtin import find_fashion

    if config.data in OWN_SIZE:
        return config.data
    return "fashion" if find_fashion(Path(config.data).expanduser()) is not None else ""


def _holds_scenes(config: ImageConfig) -> bool:
    from skipless.data.scenes.write import MARKER

    return (Path(config.data).expanduser() / MARKER).is_file()
