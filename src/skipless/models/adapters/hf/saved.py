"""What a configuration says of a model's skips, so that a skipless model that is saved comes back skipless.

`config.skipless` holds the arguments of `remove_skips_`, what stands for the softmax (`replace_attention_`), and what
decayed skips multiply tokens by (`set_skip_gains_`). A
model that is built with such a configuration, by its class,
by `AutoModel`, or by `from_pretrained`, loses its skips as soon as it has its blocks (`build_`). Its file says
`"model_type": "skipless_llama"`, so that `transformers` without this library refuses it.
"""

import copy
import json
from pathlib import Path as File
from typing import Any

from torch import nn

from skipless import nn as nn_layers
from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.nn import AttentionCore

FIELD = "skipless"
TYPE_PREFIX = "skipless_"


def note_(model: nn.Module) -> None:
    """Write into the configurations of a model's parts which skips their blocks have lost.

    A configuration is copied before: others may be built with it.
    """
    for module in _with_configuration(model):
        noted = described(module)
        old = module.config
        if getattr(old, FIELD, None) == noted:
            continue
        new = copy.deepcopy(old)
        _write(new, noted)
        for part in model.modules():
            if vars(part).get("config") is old:
                part.config = new  # pyright: ignore[reportAttributeAccessIssue]


def _write(config: Any, noted: dict[str, Any] | None) -> None:
    if noted is None:
        vars(config).pop(FIELD, None)
    else:
        setattr(config, FIELD, noted)


def _with_configuration(model: nn.Module) -> list[Any]:
    """Every model of the library's in a model that has blocks that are known here, outermost first."""
    from skipless.models.adapters.hf.adapter import blocks

    models = [module for module in model.modules() if hasattr(module, "config") and hasattr(module, "save_pretrained")]
    return [module for module in models if blocks(module)]


def described(model: nn.Module, *, strictly: bool = False) -> dict[str, Any] | None:
    """What makes a residual model with softmax like this one, the arguments of `remove_skips_` and the core; or None.

    Args:
        model: has blocks that are known here.
        strictly: refuse a model whose blocks differ; otherwise the first block speaks for all.

    Raises:
        InputError: if no arguments do.
    """
    from skipless.models.adapters.hf.adapter import blocks, view

    views = [view(name, block) for name, block in blocks(model)]
    states = [_state(one) for one in views]
    if strictly:
        for one in views:
            _check_core(one)
    if strictly and any(state != states[0] for state in states):
        raise InputError(
            "the blocks have lost different skips or LayerScale, or have different cores of "
            "attention, which a configuration cannot say: save "
            "model.state_dict(), or remove the same skips from all blocks"
        )
    if not states:
        return None
    gains = [[one.gain("attn"), one.gain("mlp")] for one in views]
    decayed = {"skip_gains": gains} if any(gain not in (0.0, 1.0) for of in gains for gain in of) else {}
    return {**(states[0] or {}), **decayed} or None


def _state(view: BlockView) -> dict[str, Any] | None:
    core = {} if view.core is None else {"core": {"kind": type(view.core).__name__, **view.core.options()}}
    removed = [name for name in ("attn", "mlp") if name not in view.skips]
    if not removed:
        return core or None
    scaled = [name for name in removed if f"layer_scale{1 + (name == 'mlp')}.lambda1" in view.layer_scales]
    if scaled and scaled != removed:
        raise InputError(
            f"{view.name} has lost one LayerScale of two, which a configuration cannot say: treat both alike"
        )
    return {"sub_blocks": removed, "layer_scale": "keep" if scaled else "remove"} | core


def _check_core(view: BlockView) -> None:
    """Refuse a core of a user's own, which no configuration can make.

    Raises:
        InputError: for one.
    """
    kind = type(view.core)
    if view.core is not None and getattr(nn_layers, kind.__name__, None) is not kind:
        raise InputError(
            f"{kind.__name__} is no core of skipless.nn: a configuration cannot make it; save model.state_dict()"
        )


def build_(model: nn.Module) -> None:
    """Remove the skips that a model's configuration says it does not have; called when the model has its parts.

    Raises:
        InputError: if the model has no blocks that are known here, or the configuration says something else of them.
    """
    noted = getattr(getattr(model, "config", None), FIELD, None)
    if noted is None:
        return
    from skipless.models.attention_core import replace_attention_
    from skipless.models.skip_gains import set_skip_gains_
    from skipless.models.surgery import remove_skips_

    if not _is_known(noted):
        raise InputError(f"the configuration says skipless={noted!r}: this version does not know what that means")
    core = dict(noted.get("core", {}))
    skips = {name: value for name, value in noted.items() if name not in ("core", "skip_gains")}
    kind = getattr(nn_layers, core.pop("kind"))(**core) if core else None
    if skips:
        remove_skips_(model, **skips)
    if kind is not None:
        replace_attention_(model, kind)
    if "skip_gains" in noted:
        set_skip_gains_(model, [tuple(gains) for gains in noted["skip_gains"]])


def _is_known(noted: Any) -> bool:
    """Whether what a configuration says is what this version writes."""
    if not isinstance(noted, dict) or not {"sub_blocks", "layer_scale", "core", "skip_gains"} >= noted.keys():
        return False
    if not noted or ("sub_blocks" not in noted and not {"core", "skip_gains"} & noted.keys()):
        return False
    if "sub_blocks" not in noted and "layer_scale" in noted:
        return False
    core = noted.get("core", {"kind": "TokenGraying"})
    kind = getattr(nn_layers, core.get("kind", ""), None) if isinstance(core, dict) else None
    return isinstance(kind, type) and ("core" not in noted or issubclass(kind, AttentionCore))


def check_saved(model: nn.Module) -> None:
    """Have a model's configuration say what its blocks are like, before it is saved.

    Raises:
        InputError: if no configuration can say it.
    """
    for module in _with_configuration(model):
        described(module, strictly=True)
    note_(model)


def check_loaded(model: Any, folder: Any, subfolder: str) -> None:
    """Refuse a residual model that was loaded from the folder of a skipless one, with another configuration.

    Raises:
        InputError: if it is one.
    """
    file = File(folder, subfolder, "config.json") if isinstance(folder, str | File) else None
    if file is None or not file.is_file():
        return
    noted = json.loads(file.read_text(encoding="utf-8")).get(FIELD)
    found = getattr(getattr(model, "config", None), FIELD, None)
    if noted is not None and noted != found:
        raise InputError(f"{folder} has a skipless model, {noted}; the config= that was given has {FIELD}={found}")
