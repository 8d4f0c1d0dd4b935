"""Libraries whose models a recipe can name: how each of them builds one for images of some size."""

import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models.surgery import create_model


@runtime_checkable
class Build(Protocol):
    """Builds a library's model for images, its weights a function of the seed."""

    def __call__(
        self,
        name: str,
        image_size: int,
        channels: int,
        classes: int,
        *,
        skip: bool,
        init: SkiplessInit | None,
        seed: int,
        kwargs: Mapping[str, Any],
    ) -> nn.Module:
        """Build it; sizes in `kwargs` go before those of the images."""
        ...


def build_timm(
    name: str,
    image_size: int,
    channels: int,
    classes: int,
    *,
    skip: bool,
    init: SkiplessInit | None,
    seed: int,
    kwargs: Mapping[str, Any],
) -> nn.Module:
    """A plain vision transformer by timm's name.

    Raises:
        InputError: if timm has no such model, or refuses the keywords, or the images are smaller than a patch.
    """
    stated = re.search(r"patch(\d+)", name)
    patch = kwargs.get("patch_size") or (int(stated[1]) if stated else None)
    if patch is not None and image_size < patch:
        raise InputError(f"images of {image_size} pixels are smaller than a patch of {patch} of {name}")
    fitted = {"img_size": image_size, "in_chans": channels, "num_classes": classes}
    return create_model(name, skip=skip, init=init, seed=seed, **{**fitted, **kwargs})


LIBRARIES: dict[str, Build] = {"timm": build_timm}


def library_named(name: str) -> Build:
    """How a library builds a model.

    Raises:
        InputError: for a library that has no adapter.

    Example:
        >>> library_named("timm") is build_timm
        True
    """
    if name not in LIBRARIES:
        raise InputError(f"no models of library {name!r}; there is {', '.join(LIBRARIES)}; to add one: docs/adapters")
    return LIBRARIES[name]
