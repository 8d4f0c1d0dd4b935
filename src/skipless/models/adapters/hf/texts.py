"""How Hugging Face's language models turn token ids into tokens, and what they give their blocks besides."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import own_class, path_of, residual_class
from skipless.models.adapters.hf.images import rotate_half
from skipless.models.blocks import BlockView
from skipless.models.calls import BlockContext
from skipless.models.text_view import TextView
from skipless.models.vit_view import Entering

# The classes that embed token ids and call the blocks, the file of their blocks, and where blocks and last norm are.
_PLACES = {
    "LlamaModel": ("llama", "layers", "norm"),
    "MistralModel": ("llama", "layers", "norm"),
    "Qwen2Model": ("llama", "layers", "norm"),
    "Qwen3Model": ("llama", "layers", "norm"),
    "GPT2Model": ("gpt2", "h", "ln_f"),
    "BertModel": ("bert", "encoder.layer", None),
}


def texts(model: nn.Module) -> list[TextView]:
    """How every language model of Hugging Face's in the model turns token ids into tokens."""
    found = [(module, path_of(own_class(module))) for module in model.modules()]
    return [_text(module, path.name) for module, path in found if path is not None and path.name in _PLACES]


def _text(transformer: Any, name: str) -> TextView:
    file, blocks, norm = _PLACES[name]
    view: Callable[[str, nn.Module], BlockView] = import_module(f"skipless.models.adapters.hf.{file}").view
    views = tuple(view(f"{blocks}.{index}", block) for index, block in enumerate(transformer.get_submodule(blocks)))
    config = transformer.config
    return TextView(
        transformer=transformer,
        views=views,
        dim=config.hidden_size,
        vocabulary=transformer.get_input_embeddings().weight.shape[0],
        length=config.max_position_embeddings,
        final_norm=nn.Identity() if norm is None else getattr(transformer, norm),
        enter=partial(_enter, transformer, views),
    )


@torch.no_grad()
def _enter(transformer: Any, views: tuple[BlockView, ...], ids: Int[Tensor, "b n"]) -> Entering:
    """Watch the model call its blocks: what one row of ids gives each of them, then the tokens of the first one."""
    calls: list[dict[str, Any]] = []
    _run_watched(transformer, [(view, calls.append) for view in views], ids[:1])
    tokens: list[Tensor] = []

    def stop(given: dict[str, Any]) -> None:
        tokens.append(given["hidden_states"])
        raise _EnoughSeenError

    with suppress(_EnoughSeenError):
        _run_watched(transformer, [(views[0], stop)], ids)
    pairs = zip(views, calls, strict=True)
    return Entering(tokens[0], tuple(_context(view, given, ids.shape[1]) for view, given in pairs))


class _EnoughSeenError(Exception):
    """Ends a forward pass of which only the beginning is needed."""


def _run_watched(transformer: Any, watched: list[tuple[BlockView, Callable[[dict[str, Any]], None]]], ids: Any) -> None:
    """Run the model on token ids, and tell what blocks are called with, by name."""
    handles = []
    for view, tell in watched:
        names = tuple(signature(residual_class(own_class(view.block)).forward).parameters)[1:]

        def hook(_: nn.Module, args: Any, kwargs: Any, names: Any = names, tell: Any = tell) -> None:
            tell({**dict(zip(names, args, strict=False)), **kwargs})

        handles.append(view.block.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        transformer(ids.to(transformer.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def _context(view: BlockView, given: dict[str, Any], count: int) -> BlockContext:
    """What a block and its attention are called with, and what that does to queries, keys and logits."""
    mask, positions = given.get("attention_mask"), given.get("position_embeddings")
    arguments = {"attention_mask": mask} | ({} if positions is None else {"position_embeddings": positions})
    return BlockContext(
        block=arguments,
        attn=arguments,
        rotate=None if positions is None else partial(_rotate, *positions),
        bias=_bias(view, mask, count),
    )


def _rotate(cos: Tensor, sin: Tensor, x: Float[Tensor, "b h n k"]) -> Float[Tensor, "b h n k"]:
    return rotate_half(x, cos[:, None], sin[:, None])


def _bias(view: BlockView, mask: Any, count: int) -> Float[Tensor, "h n n"] | None:
    """What the mask adds to logits; fused attention is given none, and leaves out what comes later by itself."""
    if mask is None:
        causal = any(getattr(module, "is_causal", False) for module in view.attn.modules())
        later = torch.ones(count, count, dtype=torch.bool, device=view.query.weight.device).triu(1)
        return torch.zeros_like(later, dtype=torch.float32).masked_fill(later, -torch.inf)[None] if causal else None
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        raise InputError(
            f"the attention of {view.name} is given a mask of type {type(mask).__name__}, which cannot be read: "
            "model.set_attn_implementation('sdpa') first"
        )
    hidden = ~mask[0] if mask.dtype == torch.bool else mask[0] <= torch.finfo(mask.dtype).min / 2
    base = torch.zeros(hidden.shape, device=mask.device) if mask.dtype == torch.bool else mask[0].float()
    return base.masked_fill(hidden, -torch.inf)
