"""Hugging Face's attentions with another core in place of the softmax; made by `replace_attention_`.

The library asks a table of functions for its attention, by the name that the configuration has
(`AttentionInterface`), and another table for the mask that goes with it (`AttentionMaskInterface`). A name that the
second table lacks gets no mask at all, so both are set here. The attention keeps its parameters and gets another class,
whose forward refuses to compute a softmax after all.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import class_by_name, known_class, own_class, residual_class, skipless_class
from skipless.models.adapters.hf.saved import note_

NAME = "skipless_core"

_HOMES = {
    "ViTAttention": "vit.modeling_vit",
    "DeiTAttention": "deit.modeling_deit",
    "Dinov2Attention": "dinov2.modeling_dinov2",
    "Dinov2WithRegistersAttention": "dinov2_with_registers.modeling_dinov2_with_registers",
    "DINOv3ViTAttention": "dinov3_vit.modeling_dinov3_vit",
    "BertSelfAttention": "bert.modeling_bert",
    "GPT2Attention": "gpt2.modeling_gpt2",
    "LlamaAttention": "llama.modeling_llama",
    "MistralAttention": "mistral.modeling_mistral",
    "Qwen2Attention": "qwen2.modeling_qwen2",
    "Qwen3Attention": "qwen3.modeling_qwen3",
}


class Forward:
    """The forward of an attention that has another core; the library's own, which calls `attend`."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Tokens to tokens, and no weights.

        Raises:
            InputError: if another implementation of attention has been chosen since.
        """
        if self.config._attn_implementation != NAME:
            raise InputError(
                f"the attention has another core, and attn_implementation is {self.config._attn_implementation!r}, "
                "which would compute a softmax: restore_attention_(model) first"
            )
        return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


_FORWARDS = {name: (home, Forward) for name, home in _HOMES.items()}


def __getattr__(name: str) -> Any:
    return class_by_name(name, _FORWARDS)


def is_replaceable(module: nn.Module) -> bool:
    """Whether a module is one of the library's attentions that are known here, with a softmax or another core."""
    home = known_class(module)
    return home is not None and _HOMES.get(home.name) == home.module


def put_in_(model: nn.Module, attention: Any) -> None:
    """Give an attention the class that goes with its core, and have its configuration name the core."""
    attention.__class__ = skipless_class(Forward, residual_class(own_class(attention)))
    before = attention.config._attn_implementation
    if before != NAME:
        attention._before_core = before
        attention.config._attn_implementation = NAME
    elif not hasattr(attention, "_before_core"):
        others = (getattr(module, "_before_core", None) for module in model.modules())
        attention._before_core = next((one for one in others if one is not None), "sdpa")


def take_out_(attention: Any) -> None:
    """Undo `put_in_`."""
    attention.__class__ = residual_class(own_class(attention))
    attention.config._attn_implementation = vars(attention).pop("_before_core")


def note_cores_(model: nn.Module) -> None:
    """Write the cores into the configurations."""
    note_(model)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The library's attention function for modules with a core, `(b, h, n, c)` to `(b, n, h, c)`.

    Raises:
        InputError: for a causal model and a core that has no causal form.
    """
    core = module.core
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if causal and not core.causal_ok:
        raise InputError(f"{type(core).__name__} is bidirectional, and `{type(module).__name__}` is causal")
    if kwargs.get("sliding_window") and hasattr(core, "tokens"):
        raise InputError(f"{type(core).__name__} has a weight for every place, and a sliding window forgets places")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    n, m = query.shape[2], key.shape[2]
    own = None
    if attention_mask is not None:
        attention_mask = attention_mask[..., :m]
        own = _own(value, attention_mask) if causal and n != m else None
        if own is not None and hasattr(core, "tokens") and _has_room(attention_mask):
            raise InputError(f"{type(core).__name__} cannot tell places in a static cache: use a dynamic one")
        causal = False
    y = core(query, key, value, mask=attention_mask, causal=causal, scale=scaling, dropout=dropout, own=own)
    return y.transpose(1, 2).contiguous(), None


def _has_room(mask: Tensor) -> bool:
    """Whether there is room behind the last query's key, as in a static cache."""
    return not bool((mask[..., -1, -1] if mask.dtype == torch.bool else mask[..., -1, -1] >= 0).any())


def _own(value: Tensor, mask: Tensor) -> Tensor:
    """Each query's own value: at the last key that it sees. A static cache has room for more keys behind it."""
    seen = mask if mask.dtype == torch.bool else mask >= 0
    places = torch.arange(seen.shape[-1], device=seen.device)
    last = (seen * places).amax(-1)[..., None].expand(value.shape[0], value.shape[1], -1, value.shape[-1])
    return value.gather(2, last)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
