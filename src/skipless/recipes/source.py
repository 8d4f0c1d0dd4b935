"""Models by name, as the command line gives them: a run folder of `skipless train`, or timm's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Size, nn

from skipless.choices import ModelState
from skipless.data.images import pixel_statistics
from skipless.display import Record
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.models import REGISTERED, create_model, load_timm
from skipless.models.libraries import LIBRARIES, model_builder
from skipless.models.libraries.finish import finish_
from skipless.models.libraries.torchvision_factory import TORCHVISION, load_named
from skipless.models.vit_view import find_vit
from skipless.recipes.language import LanguageRecipe
from skipless.recipes.read import near_run, read_recipe
from skipless.recipes.recipe import Recipe
from skipless.recipes.text_models import SAVED, language_model, saved_model, saved_statistics
from skipless.training import load_weights, weight_shapes
from skipless.training.run_folder.weights_note import (
    TWIN,
    Statistics,
    WeightsNote,
    check_beyond,
    check_kwargs,
    check_name,
    read_note,
)

HF = "hf:"
"""What may go before a folder of Hugging Face's `save_pretrained`."""


@dataclass(frozen=True, eq=False, repr=False)
class ModelSource(Record):
    """A model to look into, and where it comes from.

    Attributes:
        name: the run folder's name, or timm's.
        model: in evaluation mode.
        trained: whether its weights have seen data.
        statistics: mean and standard deviation of each channel that its images are normalised by; None where its own
            configuration says.
        recipe: of the run; None for a timm name.
        context: of a language model, the tokens that it sees at most; None of a model of images.
        folder: of the run, or of a checkpoint of Hugging Face's; None where there is none.
    """

    name: str
    model: nn.Module
    trained: bool
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    recipe: Recipe | None = None
    context: int | None = None
    folder: Path | None = None

    def _summary(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        recipe = "" if self.recipe is None else f", recipe {self.recipe.name}"
        return f"{self.title}, {type(self.model).__name__} of {count:,} parameters{recipe}"

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.name if self.trained else f"{self.name}, untrained"

    @property
    def state(self) -> ModelState:
        """Whose weights it has."""
        if not self.trained:
            return "untrained"
        return "trained" if self.recipe is None else self.recipe.outcome

    @property
    def image_size(self) -> int | None:
        """Side in pixels that the model was built for."""
        try:
            size = find_vit(self.model).image_size
        except InputError:
            return None
        return None if size is None else size[0]


def open_model(
    source: str, *, weights: Path | None = None, pretrained: bool = False, untrained: bool = False, seed: int = 0
) -> ModelSource:
    """Build the model that a run folder or a timm name stands for; the run's training data is not needed.

    Args:
        source: a run folder, of a language model too; a folder that Hugging Face's `save_pretrained` has written, with
            `hf:` before it or not; timm's name of a vision transformer, ours (`skipless_vit_small_patch16_224`) among
            them; or torchvision's after `torchvision:`.
        weights: other weights than the run's last, or those of the timm model: a safetensors file. A file that says
            which model it is of also says how to build it, and whether it is trained.
        pretrained: take timm's pretrained weights.
        untrained: leave the weights of a run as they were before its first step.
        seed: of the weights of a timm model that is given none.

    Raises:
        InputError: if there is no such run or model, or the weights are another model's, or of the same shapes but of a
            model with other skips.

    Example:
        >>> source = open_model("skipless_vit_tiny_patch16_224")
        >>> source.name, source.trained, source.recipe
        ('skipless_vit_tiny_patch16_224', False, None)
    """
    folder = Path(source.removeprefix(HF)).expanduser()
    if source.startswith(HF) and not folder.is_dir():
        raise InputError(f"{source!r}: there is no folder {str(folder)!r}; download it first, by `hf download`")
    if source and folder.is_dir():
        if pretrained:
            raise InputError(f"--pretrained is for timm's names; {source!r} is a run folder, with weights of its own")
        if is_saved(folder):
            return _from_saved(folder, weights, untrained)
        return _from_run(folder, weights, untrained)
    if weights is not None and pretrained:
        raise InputError(f"--weights {str(weights)!r} and --pretrained: give one of them")
    if weights is not None:
        return _from_weights(source, weights, seed)
    try:
        model = load_named(source, pretrained=pretrained, seed=seed)
    except InputError as error:
        near = near_run(folder) if source else ""
        if near:  # timm would speak of Hugging Face first
            raise InputError(f"there is no run at {source!r}; {near} Nor is there such a model: {error}") from error
        raise
    return ModelSource(place_of(source), model.eval(), trained=pretrained)


def is_saved(folder: Path) -> bool:
    """Whether Hugging Face's `save_pretrained` has written a folder."""
    return (folder / SAVED).is_file() and not (folder / "run.json").is_file()


def _from_saved(folder: Path, weights: Path | None, untrained: bool) -> ModelSource:
    if weights is not None or untrained:
        asked = "--untrained" if untrained else f"--weights {str(weights)!r}"
        raise InputError(f"{asked}: {str(folder)!r} is a model of Hugging Face's, which has weights of its own")
    model, context = saved_model(folder)
    statistics = saved_statistics(folder) if context is None else None
    return ModelSource(place_name(folder), model.eval(), True, statistics, context=context, folder=folder)


def place_of(name: str) -> str:
    """A model's name as that of a folder.

    Example:
        >>> place_of("hf-hub:timm/vit_small_patch16_224.dino"), place_of("torchvision:vit_b_16")
        ('timm--vit_small_patch16_224.dino', 'torchvision--vit_b_16')
    """
    name = f"{TORCHVISION[:-1]}/{name.removeprefix(TORCHVISION)}" if name.startswith(TORCHVISION) else name
    return name.rpartition(":")[2].replace("/", "--")


def noted_model(note: WeightsNote, shapes: Mapping[str, Size], source: str) -> nn.Module:
    """Build the model that a note and the shapes of weights describe; its own weights are to be overwritten.

    Raises:
        InputError: if the shapes are no plain ViT's, or timm has no such model, or refuses the keywords.
    """
    sizes = sizes_of(shapes, source)
    given = {"img_size": sizes["image_size"], "in_chans": sizes["channels"], "num_classes": sizes["classes"]}
    kwargs: dict[str, Any] = {**given, **note.kwargs}
    if note.model.startswith(TWIN) and note.architecture not in REGISTERED:  # no twin by name, but the same network
        return create_model(note.model.removeprefix(TWIN), seed=0, attention=note.attention, blank=True, **kwargs)
    bare = load_timm(note.model, blank=True, **kwargs)
    return finish_(bare, attention=note.attention, skip_gain=note.skip_gain, blank=True)


def sized(name: str, shapes: Mapping[str, Size], source: str) -> nn.Module | None:
    """torchvision's model of a name for weights of these shapes, whatever its head and images; None of other libraries.

    Raises:
        InputError: if the shapes are no plain ViT's, or torchvision has no such model.
    """
    if not name.startswith(TORCHVISION):
        return None
    sizes = sizes_of(shapes, source)
    start: dict[str, Any] = {"skip": True, "init": None, "positions": "kept", "seed": 0}
    return LIBRARIES["torchvision"](name.removeprefix(TORCHVISION), **sizes, **start, kwargs={})


def statistics_of(note: WeightsNote) -> Statistics | None:
    """By what the images of a noted model are normalised; None where its own configuration says."""
    return note.statistics if note.run is None else pixel_statistics(read_recipe(note.run).data)


def twin_name(recipe: Recipe) -> str:
    """The name of a recipe's model in notes: `skipless_` goes before that of a model without its skips."""
    return recipe.model.name if recipe.model.skip else f"{TWIN}{recipe.model.name}"


def _from_weights(name: str, weights: Path, seed: int) -> ModelSource:
    """The model of a timm name with weights of a file, which must be of this model where the file says of which."""
    shapes, note = weight_shapes(weights), read_note(weights)
    if note is None:
        blank = sized(name, shapes, str(weights)) or load_named(name, seed=seed, blank=True)
        model = load_weights(blank, weights)
        return ModelSource(place_of(name), model.eval(), trained=True)
    check_name(note, name, str(weights))
    model = load_weights(noted_model(note, shapes, str(weights)), weights)
    return ModelSource(name, model.eval(), note.trained, statistics_of(note))


def _from_run(folder: Path, weights: Path | None, untrained: bool) -> ModelSource:
    recipe = read_recipe(folder)
    if isinstance(recipe, LanguageRecipe):
        model, trained = language_model(recipe, folder, weights, untrained).eval(), not untrained
        return ModelSource(place_name(folder), model, trained, None, recipe, recipe.data.context, folder)
    model_builder(recipe.model.library)  # refuses a library that is not there
    shapes = weight_shapes(weights or folder)
    note = None if weights is None else read_note(weights)
    if note is not None:
        check_name(note, twin_name(recipe), str(weights))
        check_kwargs(note, recipe.model.kwargs, str(weights))
        check_beyond(note, recipe.model.attention, recipe.model.skip_gain, str(weights))
    sizes = sizes_of(shapes, str(weights or folder), recipe.data.image_size or 224)
    model = recipe.model.build_for(**sizes, seed=recipe.fit.seed, blank=not untrained)  # what is loaded is not drawn
    if not untrained:
        load_weights(model, weights or folder)
    trained = not untrained and (note is None or note.trained)
    return ModelSource(place_name(folder), model.eval(), trained, pixel_statistics(recipe.data), recipe, None, folder)


def _is_rotary(shapes: Mapping[str, Size]) -> bool:
    """Whether a model without a position embedding is one that has no need of it: DINOv3's, by its blocks' names."""
    return any(
        name.startswith("blocks.") and name.endswith(("attn.q_proj.weight", "attn.qkv.weight")) for name in shapes
    )


# Where libraries keep patch embedding, position embedding and head.
_TIMM_NAMES = ("patch_embed.proj.weight", "pos_embed", "head.weight")
_TORCHVISION_NAMES = ("conv_proj.weight", "encoder.pos_embedding", "heads.head.weight")


_SAVED_PATCHES = "embeddings.patch_embeddings.projection.weight"  # of transformers' models, below their own name


def _names(shapes: Mapping[str, Size]) -> tuple[str, str, str]:
    """The names of patch embedding, position embedding and head."""
    patches = next((name for name in shapes if name.endswith(_SAVED_PATCHES)), None)
    if patches is not None:
        places = f"{patches.removesuffix('patch_embeddings.projection.weight')}position_embeddings"
        return patches, places, "model.classifier.weight"
    return _TORCHVISION_NAMES if "encoder.pos_embedding" in shapes else _TIMM_NAMES


def sizes_of(shapes: Mapping[str, Size], source: str, image_size: int = 224) -> dict[str, int]:
    """What the data once decided about a model, read off its weights.

    Args:
        shapes: of the weights, by name.
        source: where they are from, for the error.
        image_size: what is taken where weights do not say it: a model with rotary positions alone has none of a size.

    Raises:
        InputError: if they are of no vision transformer.
    """
    names = _names(shapes)
    try:
        _, channels, patch, _ = shapes[names[0]]
        tokens = shapes[names[1]][1] if names[1] in shapes or not _is_rotary(shapes) else (image_size // patch) ** 2
    except (KeyError, ValueError) as error:
        raise InputError(f"{source!r} holds no plain ViT's weights: {error} is not as expected") from error
    side = int(tokens**0.5)  # one more token, or a few, do not make another square
    return {
        "image_size": side * patch,
        "channels": channels,
        "classes": shapes[names[2]][0] if names[2] in shapes else 0,
    }
