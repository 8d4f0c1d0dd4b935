"""Registers the skipless models and SOAP in timm's registries, whichever of timm and skipless is imported first.

`import skipless` imports neither torch nor timm. What timm has imported already is met at once. For the rest, a
post-import hook waits for timm's module. It runs while timm's import lock is held: so nothing here imports more before
a model is asked for, or two threads might wait for each other.
"""

import importlib
import re
import sys
from dataclasses import replace
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from skipless.errors import InputError
from skipless.models.libraries.after_import import after_import

if TYPE_CHECKING:
    from torch import nn

_MODELS = "timm"
_OPTIMIZERS = "timm.optim._optim_factory"  # which `import timm` leaves alone, and `import timm.optim` imports
_FACTORY = "skipless.models.libraries.timm_factory"
_SOAP = "skipless.optim.soap.optimizer.SOAP"
_PLAIN = re.compile(r"vit_(tiny|small|base|large|huge)_patch\d+_(224|384|dinov2|reg4_dinov2)")
_EVA = re.compile(r"vit_\w+_patch16_dinov3(_qkvb)?")
# What a twin has in common with the residual model. Licence, paper and tag are those of weights.
_OF_ARCHITECTURE = (
    "input_size", "test_input_size", "min_input_size", "fixed_input_size", "pool_size", "test_pool_size",
    "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std", "num_classes", "first_conv", "classifier",
)  # fmt: skip
_OTHER_PATCH = ("vit_tiny_patch14_224", "vit_small_patch14_224", "vit_base_patch14_224")

# timm reads it when a model of this module is registered, as it does in modules of its own.
default_cfgs: dict[str, dict[str, Any]] = {}


def register_with_timm() -> None:
    """Register the skipless models and SOAP with timm, now or once timm is imported."""
    after_import(_MODELS, register_models)
    after_import(_OPTIMIZERS, _register_soap)


def register_models(timm: Any) -> tuple[str, ...]:
    """Register a variant `skipless_NAME` for every plain vision transformer NAME of timm's, and for DINOv3's.

    The variants take every keyword that timm's own entry points take. They also take `init` (a `SkiplessInit`, or its
    fields as a dict, which timm can save with the model, or `"ours"`), `sub_blocks`, `layer_scale` and `generator`.
    With `init=False` the blocks keep timm's own weights, as they do where weights are loaded. timm has no tiny, small
    and base with patch 14 at 224; those are its patch-16 models with `patch_size=14`.

    Args:
        timm: the module.

    Returns:
        The registered names; those that are registered already stay as they are.
    """
    names = [name for name in timm.list_models("vit_*", module="vision_transformer") if _PLAIN.fullmatch(name)]
    names += [name for name in timm.list_models("vit_*", module="eva") if _EVA.fullmatch(name)]
    names += [name for name in _OTHER_PATCH if name not in names]
    for name in names:
        if not timm.is_model(f"skipless_{name}"):
            _register_variant(timm, name)
    return tuple(f"skipless_{name}" for name in names)


def _register_variant(timm: Any, name: str) -> None:
    variant = f"skipless_{name}"
    base, patch = (name.replace("patch14", "patch16"), {"patch_size": 14}) if name in _OTHER_PATCH else (name, {})

    def entrypoint(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "nn.Module":
        config = _resolved_config(timm, variant, pretrained_cfg, pretrained_cfg_overlay)
        if pretrained and not (config.has_weights or config.state_dict):
            raise InputError(
                f"no pretrained weights exist for {variant}: residual weights mean nothing without the skips; train "
                "it, or load your own with pretrained_cfg_overlay=dict(file=...) or checkpoint_path="
            )
        if pretrained and not kwargs.get("pretrained_strict", True):
            raise InputError(
                f"pretrained_strict=False of {variant}: blocks that the file lacks would stay without the scheme; make "
                "the model without pretrained, then call load_state_dict(..., strict=False)"
            )
        ours = {key: kwargs.pop(key) for key in ("init", "sub_blocks", "layer_scale", "generator") if key in kwargs}
        loaded = pretrained or _loads_checkpoint(variant, sys._getframe())
        model = timm.model_entrypoint(base)(pretrained=pretrained, pretrained_cfg=config, **{**patch, **kwargs})
        return importlib.import_module(_FACTORY).to_variant(model, name, loaded=loaded, **ours)

    entrypoint.__name__ = entrypoint.__qualname__ = variant
    entrypoint.__module__ = __name__
    entrypoint.__doc__ = f"`{name}` without skip connections, initialised by the scheme of section 5."
    default_cfgs[variant] = _default_config(timm.get_pretrained_cfg(base))
    timm.models.register_model(entrypoint)


def _loads_checkpoint(variant: str, frame: FrameType | None) -> bool:
    """Whether timm's factory, which has called a variant's entry point, will load all weights from `checkpoint_path`.

    The factory does so after the entry point has returned, and does not tell it. Its local variables do. A factory that
    makes another model, of which the variant is a part, does not load the variant's weights.
    """
    while frame is not None and frame.f_globals.get("__name__") != "timm.models._factory":
        frame = frame.f_back
    known = {} if frame is None else frame.f_locals
    return known.get("model_name") == variant and bool(known.get("checkpoint_path"))


def _default_config(config: Any) -> dict[str, Any]:
    """How a residual model's images are made and where its ends are, without its weights: they are no twin's."""
    kept = {} if config is None else config.to_dict(remove_source=True)
    return {key: value for key, value in kept.items() if key in _OF_ARCHITECTURE}


def _resolved_config(timm: Any, variant: str, given: Any, overlay: dict[str, Any] | None) -> Any:
    """The configuration that timm would find for the variant.

    Raises:
        InputError: if a pretrained tag is given: the tags are those of residual weights.
    """
    if isinstance(given, str) and given:
        raise InputError(
            f"{variant} has no pretrained tag {given!r}: tags name residual weights, which mean nothing without the "
            f"skips; leave it out: {variant}"
        )
    config = timm.models.resolve_pretrained_cfg(variant, given, overlay)
    return replace(config, architecture=variant)  # timm saves it, so that loading builds the variant again


def _register_soap(factory: ModuleType) -> None:
    """Add SOAP to timm's optimizers by its path, so that it is imported when it is asked for.

    An optimizer that timm itself, or somebody else, has by this name stays.
    """
    if "soap" in factory.list_optimizers():
        return
    info = factory.OptimInfo(
        name="soap",
        opt_class=_SOAP,
        description="Shampoo with Adam in the preconditioner's eigenbasis, skipless's implementation",
        has_betas=True,
    )
    factory.default_registry.register(info)
