"""Models by name, as the command line gives them: a run folder of `skipless train`, or timm's name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Size, nn

from skipless.data.images import pixel_statistics
from skipless.errors import InputError
from skipless.models import load_timm
from skipless.recipes.read import read_recipe
from skipless.recipes.recipe import Recipe
from skipless.training import load_weights, weight_shapes


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model to look into, and where it comes from.

    Attributes:
        name: the run folder's name, or timm's.
        model: in evaluation mode.
        trained: whether its weights have seen data.
        statistics: mean and standard deviation of each channel that its images are normalised by; None where its own
            configuration says.
        recipe: of the run; None for a timm name.
    """

    name: str
    model: nn.Module
    trained: bool
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    recipe: Recipe | None = None

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.name if self.trained else f"{self.name}, untrained"

    @property
    def image_size(self) -> int | None:
        """Side in pixels that the model was built for."""
        size = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        return None if size is None else int(size[0])


def open_model(
    source: str, *, weights: Path | None = None, pretrained: bool = False, untrained: bool = False, seed: int = 0
) -> ModelSource:
    """Build the model that a run folder or a timm name stands for; the run's training data is not needed.

    Args:
        source: a run folder, or timm's name of a plain ViT, ours (`skipless_vit_small_patch16_224`) among them.
        weights: other weights than the run's last, or those of the timm model: a safetensors file.
        pretrained: take timm's pretrained weights.
        untrained: leave the weights of a run as they were before its first step.
        seed: of the weights of a timm model that is given none.

    Raises:
        InputError: if there is no such run or model, or the weights are another model's.

    Example:
        >>> source = open_model("skipless_vit_tiny_patch16_224")
        >>> source.name, source.trained, source.recipe
        ('skipless_vit_tiny_patch16_224', False, None)
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if pretrained:
            raise InputError(f"--pretrained is for timm's names; {source!r} is a run folder, with weights of its own")
        return _from_run(folder, weights, untrained)
    model = load_timm(source, pretrained=pretrained, seed=seed)
    if weights is not None:
        load_weights(model, weights)
    return ModelSource(source, model.eval(), trained=pretrained or weights is not None)


def check_library(recipe: Recipe, folder: Path) -> None:
    """Refuse a run of a library whose models cannot be rebuilt from their weights.

    Raises:
        InputError: that names the library.
    """
    if recipe.model.library != "timm":
        raise InputError(
            f"{str(folder)!r} is a run of {recipe.model.library}'s {recipe.model.name!r}; "
            "only timm's models can be opened"
        )


def _from_run(folder: Path, weights: Path | None, untrained: bool) -> ModelSource:
    recipe = read_recipe(folder)
    check_library(recipe, folder)
    shapes = weight_shapes(weights or folder)
    config = recipe.model if untrained else replace(recipe.model, init=None)  # what is loaded need not be drawn
    model = config.build_for(**sizes_of(shapes, str(weights or folder)), seed=recipe.fit.seed)
    if not untrained:
        load_weights(model, weights or folder)
    return ModelSource(folder.name, model.eval(), not untrained, pixel_statistics(recipe.data), recipe)


def sizes_of(shapes: Mapping[str, Size], source: str) -> dict[str, int]:
    """What the data once decided about a model, read off its weights."""
    try:
        _, channels, patch, _ = shapes["patch_embed.proj.weight"]
        tokens = shapes["pos_embed"][1]
    except (KeyError, ValueError) as error:
        raise InputError(f"{source!r} holds no plain ViT's weights: {error} is not as expected") from error
    side = int(tokens**0.5)  # one more token, or a few, do not make another square
    return {
        "image_size": side * patch,
        "channels": channels,
        "classes": shapes["head.weight"][0] if "head.weight" in shapes else 0,
    }
