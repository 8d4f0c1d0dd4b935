"""Model builders of the libraries that a recipe can name, for images of a given size."""

import re
from collections.abc import Mapping
from typing import Any, Protocol, Unpack, runtime_checkable

from torch import nn

from skipless.errors import InputError
from skipless.models.libraries.hf_factory import ImageLogits, create_hf_model
from skipless.models.libraries.start import Start
from skipless.models.libraries.timm_factory import create_model
from skipless.models.libraries.torchvision_factory import build_torchvision


@runtime_checkable
class ModelBuilder(Protocol):
    """Builds a library's model for images of a given size; the weights are a function of the seed.

    Of a causal model, `channels` is 0, `image_size` the context in tokens, and `classes` the size of the vocabulary.
    """

    def __call__(
        self,
        name: str,
        image_size: int,
        channels: int,
        classes: int,
        *,
        kwargs: Mapping[str, Any],
        **start: Unpack[Start],
    ) -> nn.Module:
        """Build the model; sizes in `kwargs` take precedence over those of the images."""
        ...


def build_timm(
    name: str,
    image_size: int,
    channels: int,
    classes: int,
    *,
    kwargs: Mapping[str, Any],
    **start: Unpack[Start],
) -> nn.Module:
    """Build a plain vision transformer by timm's name.

    Raises:
        InputError: if timm has no such model or refuses the keywords, if the images are smaller than a patch, or if it
            is asked for a language model.
    """
    if not channels:
        raise InputError(
            f"timm's {name!r} takes images and predicts no tokens; give a language model of another library"
        )
    patch = patch_size(name, kwargs)
    if patch is not None and image_size < patch:
        raise InputError(f"images of {image_size} pixels are smaller than a patch of {patch} of {name}")
    sizes = {"img_size": image_size, "in_chans": channels, "num_classes": classes}
    return create_model(name, **start, **{**sizes, **kwargs})


def patch_size(name: str, kwargs: Mapping[str, Any]) -> int | None:
    """Side in pixels of the square patches of timm's model, before it is built; None where its name does not say it.

    Example:
        >>> patch_size("vit_base_patch16_224", {}), patch_size("vit_tiny_patch16_224", {"patch_size": 2})
        (16, 2)
    """
    match = re.search(r"patch(\d+)", name)
    found = kwargs.get("patch_size") or (int(match[1]) if match else None)
    return found if isinstance(found, int) else None


def build_transformers(
    name: str,
    image_size: int,
    channels: int,
    classes: int,
    *,
    kwargs: Mapping[str, Any],
    **start: Unpack[Start],
) -> nn.Module:
    """Build one of Hugging Face's image classifiers by its class's name; without channels, a causal language model.

    `kwargs` are fields of its configuration. A language model has `classes` tokens and a context of `image_size`.

    Raises:
        InputError: if there is no such class, or it refuses the fields, or the images are smaller than a patch.
    """
    if not channels:
        return _causal(name, image_size, classes, kwargs, **start)
    sizes = {"image_size": image_size, "num_channels": channels, "num_labels": classes, **kwargs}
    patch = kwargs.get("patch_size", 16)
    if not name.endswith("ForImageClassification"):
        raise InputError(f"{name!r} of transformers classifies no images; give one such as 'ViTForImageClassification'")
    if isinstance(patch, int) and sizes["image_size"] < patch:
        raise InputError(f"images of {image_size} pixels are smaller than a patch of {patch} of {name}")
    return ImageLogits(create_hf_model(name, **start, **sizes))


def _causal(name: str, context: int, vocabulary: int, kwargs: Mapping[str, Any], **start: Unpack[Start]) -> nn.Module:
    if not name.endswith(("ForCausalLM", "LMHeadModel")):
        raise InputError(f"{name!r} of transformers predicts no next tokens; give one such as 'LlamaForCausalLM'")
    sizes = {"vocab_size": vocabulary, "max_position_embeddings": context}
    return create_hf_model(name, **start, **{**sizes, **kwargs})


LIBRARIES: dict[str, ModelBuilder] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "transformers": build_transformers,
}
"""How each library that a recipe can name builds a model; an entry added here can be named, too."""


def model_builder(library: str) -> ModelBuilder:
    """Look up the model builder of a library.

    Raises:
        InputError: for a library whose models are not built here.

    Example:
        >>> model_builder("timm") is build_timm
        True
    """
    if library not in LIBRARIES:
        raise InputError(
            f"no models of library {library!r}; there is {', '.join(LIBRARIES)}; to add one: docs/adapters"
        )
    return LIBRARIES[library]
