"""create_model: timm's models with skips, without skips, or without skips and initialised."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from torch import Generator, nn

from skipless.choices import Positions
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models.adapters.known import no_adapter
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.attention_config import AttentionConfig
from skipless.models.blocks import SubBlock
from skipless.models.libraries.finish import SOFTMAX, finish_
from skipless.models.libraries.timm_registry import register_models
from skipless.models.starting.initialization import initialize_
from skipless.models.surgery import remove_skips_

_UNEXPECTED = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'")
# What timm's factory raises for keywords, tags and checkpoint paths that it cannot use.
_TIMM_ERRORS = (TypeError, ValueError, KeyError, AssertionError, ArithmeticError, RuntimeError, OSError)


def create_model(
    name: str,
    *,
    skip: bool = False,
    init: SkiplessInit | Literal["ours"] | None = None,
    positions: Positions = "kept",
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    attention: AttentionConfig = SOFTMAX,
    skip_gain: float = 1.0,
    blank: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a timm model with skips, without skips, or without skips and initialised: the three rows of Table 1.

    Args:
        name: timm's name of the residual model, `vit_small_patch16_224`.
        skip: keep the skips; `create_model(name, skip=True)` is timm's own model.
        init: the scheme; `"ours"` is `SkiplessInit.for_model`, and None leaves timm's own initialisation.
        positions: without `init`, what position embeddings and prefix tokens start as; a scheme has its own.
        sub_blocks: the sub-blocks whose skips are left out if `skip` is False.
        attention: what stands for the softmax.
        skip_gain: what the skips of the last block multiply their tokens by (`decayed_gains`); 1 leaves all.
        blank: all weights will be overwritten, so a scale of attention is not solved.
        seed: if given, weights drawn on the CPU depend on this number only, and torch's global generator is restored.
        **kwargs: for `timm.create_model`.

    Raises:
        InputError: for an unknown model, keywords that timm refuses, and whatever `remove_skips_` refuses.

    Example:
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(alpha=1.8, beta=1.0), depth=2, seed=0)
        >>> sum(p.numel() for p in model.parameters())
        1268776
    """
    _check_known(name)
    if source := timm.models.parse_model_name(name)[0]:
        raise InputError(
            f"{name!r} is a model of {source} that may have its skips or not; name one of timm's, whose weights can "
            "come from a file: vit_small_patch16_224"
        )
    if name.startswith("skipless_"):
        bare = name.removeprefix("skipless_")
        raise InputError(f"{name!r} is skipless and initialised already; name {bare!r} here, with skip= and init=")
    if init is not None and positions != "kept":
        raise InputError(f"positions={positions!r} is for models without init; a scheme has positions of its own")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is out of range; give 0 to 2^63 - 1")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        try:
            model = timm.create_model(name, **kwargs)
        except _TIMM_ERRORS as error:
            raise _refused("build", name, kwargs, error) from error
        return finish_(
            model,
            skip=skip,
            init=init,
            positions=positions,
            sub_blocks=sub_blocks,
            attention=attention,
            skip_gain=skip_gain,
            blank=blank,
        )


def load_timm(name: str, *, pretrained: bool = False, seed: int = 0, blank: bool = False, **kwargs: Any) -> nn.Module:
    """Create a timm model by its name, as `timm.create_model` does; the name may be one of our skipless variants.

    Args:
        name: timm's name of the model.
        pretrained: use timm's weights, which it downloads.
        seed: seed of the weights that are drawn.
        blank: all weights will be overwritten: a skipless variant is not initialised.
        **kwargs: for `timm.create_model`.

    Raises:
        InputError: if timm does not know the name or refuses the keywords, or the weights cannot be loaded.
    """
    _check_known(name)
    if blank and name in REGISTERED:
        kwargs = {**kwargs, "init": False}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return timm.create_model(name, pretrained=pretrained, **kwargs)
        except InputError:
            raise
        except _TIMM_ERRORS as error:
            what = "load the pretrained weights of" if pretrained else "build"
            raise _refused(what, name, kwargs, error) from error


def _check_known(name: str) -> None:
    """Raise `InputError` unless timm has the model, or the name says where timm is to get it (`hf-hub:`)."""
    try:
        source, _ = timm.models.parse_model_name(name)
    except (ValueError, AssertionError) as error:
        raise InputError(str(error)) from error
    if not source and not timm.is_model(name):
        near = _near_models(name)
        hint = f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() lists them"
        raise InputError(f"timm has no model {name!r}{hint}")


def _near_models(name: str) -> list[str]:
    """Up to three names that may have been meant: plain ViTs, which are supported, before timm's other models.

    A name that is begun, `vit_base`, means those that go on, the usual patch and size first. Where a model that is not
    supported is far nearer, it was meant: `resnet5`.
    """
    plain = [twin.removeprefix("skipless_") for twin in REGISTERED]
    supported = [one for one in (*plain, *REGISTERED) if timm.is_model(one)]
    begun = [one for one in supported if one.startswith(f"{name}_")]
    if begun:
        return sorted(begun, key=lambda one: (not one.endswith("_patch16_224"), len(one), one))[:3]
    nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
    close = difflib.get_close_matches(name, supported, n=3, cutoff=0.85)
    return list(dict.fromkeys([*close, *nearest]))[:3]


def _refused(what: str, name: str, kwargs: Mapping[str, Any], error: Exception) -> InputError:
    """What is told of a model that timm does not build: that it is none of ours, or why, in one line."""
    told = " ".join(str(error).split())
    if found := _UNEXPECTED.search(told):
        family, keyword = found.groups()
        if keyword == "img_size":  # every plain ViT takes it
            return no_adapter(family)
        told = f"`{family}` takes no {keyword!r}"
    given = f" with {dict(kwargs)}" if kwargs else ""
    return InputError(f"timm cannot {what} {name!r}{given}: {told}")


def to_variant(
    model: nn.Module,
    name: str,
    *,
    loaded: bool,
    init: SkiplessInit | Mapping[str, Any] | Literal["ours", False] | None = None,
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    layer_scale: LayerScaleChoice = "remove",
    generator: Generator | None = None,
) -> nn.Module:
    """Turn timm's model into its registered skipless variant.

    Weights stay as they are if they have been or will be loaded, or with `init=False`.

    Raises:
        InputError: for what `remove_skips_` refuses, and for an `init` that is no scheme.
    """
    if not (init is None or init is False or init == "ours" or isinstance(init, SkiplessInit | Mapping)):
        raise InputError(
            f"init={init!r} of skipless_{name}: give a SkiplessInit, its fields as a dict, 'ours', or False for none"
        )
    remove_skips_(model, sub_blocks, layer_scale=layer_scale)
    if loaded or init is False:
        return model
    if init is None:  # the paper's values for ViT-Small or ViT-Base, whichever width is nearer
        init = SkiplessInit.preset("dino_vit_small" if "_tiny_" in name or "_small_" in name else "vit_base")
    elif init == "ours":
        init = SkiplessInit.for_model(model)
    elif isinstance(init, Mapping):
        init = _scheme(init)
    return initialize_(model, init, generator=generator)


def _scheme(fields: Mapping[str, Any]) -> SkiplessInit:
    """The scheme of some fields, as timm keeps them with a model.

    Raises:
        InputError: for a field that the scheme does not have, and for values that it refuses.
    """
    known = [field.name for field in dataclasses.fields(SkiplessInit)]
    for name in fields:
        if name not in known:
            raise InputError(f"init={dict(fields)}: SkiplessInit has no {name!r}; it has {', '.join(known)}")
    return SkiplessInit(**fields)


REGISTERED = register_models(timm)
"""Names of the skipless models in timm's registry, `skipless_vit_small_patch16_224` among them."""
