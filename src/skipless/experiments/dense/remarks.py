"""What is told before a pretraining whose data is not what its scale is made for. It may be meant."""

from pathlib import Path

from skipless.recipes.self_supervised import DinoRecipe


def remarks(recipe: DinoRecipe) -> list[str]:
    """Sentences about a recipe of this room; none where its data is its scale's own."""
    from skipless.data.scenes.write import MARKER

    data = recipe.data.data
    folder = Path(data).expanduser()
    scenes = (folder / MARKER).is_file()
    if recipe.scale == "vit_small" and scenes:
        return [f"{data!r} holds generated scenes; --scale scenes is made for them, this one for ImageNet-1k"]
    if recipe.scale == "scenes" and not scenes and folder.is_dir() and not any(folder.glob("*.tar")):
        return [f"scale 'scenes' is made for generated scenes of 64 pixels, and {data!r} holds none"]
    return []
