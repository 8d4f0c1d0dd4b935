"""torchvision's vision transformers by name: `vit_b_16` in a recipe, `torchvision:vit_b_16` on a command line."""

import difflib
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import nn

from skipless.errors import InputError
from skipless.models.libraries.finish import finish_
from skipless.models.libraries.start import Start
from skipless.models.libraries.timm_factory import load_timm

TORCHVISION = "torchvision:"
"""What goes before the name of one of torchvision's models where another library's may stand."""

# What torchvision raises for keywords, sizes and weights that it cannot use.
_ERRORS = (TypeError, ValueError, KeyError, AssertionError, RuntimeError, OSError)


def build_torchvision(
    name: str,
    image_size: int,
    channels: int,
    classes: int,
    *,
    kwargs: Mapping[str, Any],
    **start: Unpack[Start],
) -> nn.Module:
    """Build a vision transformer by torchvision's name, for images of one size with three channels.

    Its head starts at zero, as torchvision has it: the first step moves the head alone.

    Raises:
        InputError: if torchvision has no such model or refuses the keywords or sizes.

    Example:
        >>> sizes = {"num_layers": 2, "hidden_dim": 24, "num_heads": 2, "mlp_dim": 48}
        >>> options = {"skip": False, "init": None, "positions": "kept", "seed": 0}
        >>> model = build_torchvision("vit_b_16", 32, 3, 10, **options, kwargs={})
        >>> model.encoder.layers[0].attn_skip, model(torch.randn(1, 3, 32, 32)).shape
        (False, torch.Size([1, 10]))
    """
    if channels != 3:
        raise InputError(f"torchvision's {name} takes images of 3 channels, not {channels}")
    if not classes:
        raise InputError(f"torchvision's {name} needs a head: it has none without classes")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(start["seed"])
        model = _made(name, None, {"image_size": image_size, "num_classes": classes, **kwargs})
        return finish_(model, **_without_seed(start))


def _without_seed(start: Start) -> dict[str, Any]:
    return {name: value for name, value in start.items() if name != "seed"}


def load_named(name: str, *, pretrained: bool = False, seed: int = 0, blank: bool = False) -> nn.Module:
    """Create a residual model by its name: timm's, or `torchvision:` and torchvision's.

    Args:
        name: `vit_small_patch16_224` or `torchvision:vit_b_16`; one of our skipless variants, too.
        pretrained: use the library's weights, which it downloads.
        seed: seed of the weights that are drawn.
        blank: all weights will be overwritten.

    Raises:
        InputError: if the library does not know the name, or the weights cannot be loaded.
    """
    if not name.startswith(TORCHVISION):
        return load_timm(name, pretrained=pretrained, seed=seed, blank=blank)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _made(name.removeprefix(TORCHVISION), "DEFAULT" if pretrained else None, {})


def _made(name: str, weights: str | None, kwargs: Mapping[str, Any]) -> nn.Module:
    from torchvision.models import get_model, list_models

    known = [one for one in list_models() if one.startswith("vit_")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise InputError(f"torchvision has no vision transformer {name!r}; did you mean {', '.join(near or known)}?")
    try:
        return get_model(name, weights=weights, **kwargs)
    except _ERRORS as error:
        given = f" with {dict(kwargs)}" if kwargs else ""
        told = " ".join(str(error).split())
        raise InputError(f"torchvision cannot build {name!r}{given}: {told}") from error
