"""Put another core than the softmax into a model's attention, and take it out again."""

import sys
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.known import find_blocks
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.nn import AttentionCore, PolynomialAttention

_HF = "skipless.models.adapters.hf.attention"


def replace_attention_(model: nn.Module, core: AttentionCore) -> nn.Module:
    """Put another core in place of the softmax of every block's attention, in place.

    Weights and their state-dict keys stay. What a core has besides, gains, gets keys of its own,
    `blocks.0.attn.core.alpha`; a checkpoint without them is reported by `load_state_dict`. Masks, causal order, rotary
    positions, grouped heads and caches mean what they did. A Hugging Face model is saved and loaded with its core.
    Replace before `torch.compile`, an optimizer or a distributed wrapper is made.

    Args:
        model: has blocks that an adapter knows.
        core: what every block gets a copy of, with gains of its own for each head. A core that is there is replaced.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model or how its attention is called, the core needs a bidirectional model
            and this one is causal, or its attention has dropout that the core cannot have. The model is then unchanged.

    Example:
        >>> import timm
        >>> from skipless.nn import PolynomialAttention
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> keys = list(model.state_dict())
        >>> model = replace_attention_(model, PolynomialAttention(power=3))
        >>> list(model.state_dict()) == keys
        True
    """
    found = [(adapter.view(name, block), attention_of(name, block)) for adapter, name, block in find_blocks(model)]
    for view, attention in found:
        _check(view, attention, core)
    cores = [core.for_block(heads=view.heads, index=i, depth=len(found)) for i, (view, _) in enumerate(found)]
    for (view, attention), own in zip(found, cores, strict=True):
        attention.core = own.to(view.query.weight.device, view.query.weight.dtype).train(attention.training)
        if _is_hf(attention):
            continue
        attention.__class__ = _classes().get(type(attention), type(attention))
    _take_whole_batches_(model)
    _note_(model, [attention for _, attention in found], put_in=True)
    return model


def restore_attention_(model: nn.Module) -> nn.Module:
    """Undo `replace_attention_`: the softmax comes back, and the core's gains go; a model with none stays as it is."""
    found = [attention_of(name, block) for _, name, block in find_blocks(model)]
    changed = [attention for attention in found if isinstance(getattr(attention, "core", None), AttentionCore)]
    for attention in changed:
        del attention.core
        if not _is_hf(attention):
            attention.__class__ = type(attention).softmax  # pyright: ignore[reportAttributeAccessIssue]
    if changed:
        _take_nested_batches_(model)
        _note_(model, changed, put_in=False)
    return model


@torch.no_grad()
def solve_attention_(
    model: nn.Module, images: Float[Tensor, "b c h w"] | None = None, *, inputs: Tensor | None = None
) -> nn.Module:
    """Find the gains of `PolynomialAttention(scale="solved")` on a batch, in place: the mean A_ii of each head is 1.

    Blocks are solved in one pass, first to last, so each is solved on what the solved ones before give it.

    Args:
        model: has such cores.
        images: a batch of normalised images.
        inputs: the same for a language model: token ids.

    Raises:
        InputError: if there is no such core, or neither or both of the batches; and where no scale makes the mean
            diagonal 1.
    """
    cores = [one for one in model.modules() if isinstance(one, PolynomialAttention) and one.scale == "solved"]
    if not cores:
        raise InputError("no core has a scale to solve: replace_attention_(model, PolynomialAttention(scale='solved'))")
    if (images is None) == (inputs is None):
        raise InputError("give a batch to solve on: images, or inputs of a language model")
    for core in cores:
        core.solving = True
    try:
        with evaluating(model):
            model(images if inputs is None else inputs)
    finally:
        for core in cores:
            core.solving = False
    return model


def attention_of(name: str, block: nn.Module) -> Any:
    """The module of a block that calls the softmax.

    Raises:
        InputError: if it is of no class that is known here, or there are several.
    """
    known = _classes()
    found = [part for part in block.modules() if type(part) in known or type(part) in known.values() or _is_hf(part)]
    if len(found) != 1:
        raise InputError(
            f"{name} has {len(found)} attentions that a core can be put into; supported: timm's Attention, "
            "AttentionRope, EvaAttention and BEiT's, nn.MultiheadAttention, and transformers' of the families that "
            "adapters know"
        )
    return found[0]


def _classes() -> dict[type, type]:
    """The class with another core, by the library's own, of libraries that have been imported."""
    files = [("torch", "torch_core"), ("timm", "timm_attention")]
    found: dict[type, type] = {}
    for library, file in files:
        if library in sys.modules:
            found |= import_module(f"skipless.models.adapters.{file}").CORES
    return found


def _take_whole_batches_(model: nn.Module) -> None:
    """Keep PyTorch's encoders from packing padded batches into nested tensors, which only their softmax takes."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            module.use_nested_tensor = False
            vars(module)["_nested_before_core"] = True


def _take_nested_batches_(model: nn.Module) -> None:
    """Undo `_take_whole_batches_`."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and vars(module).pop("_nested_before_core", False):
            module.use_nested_tensor = True


def _is_hf(module: nn.Module) -> bool:
    return "transformers.modeling_utils" in sys.modules and import_module(_HF).is_replaceable(module)


def _note_(model: nn.Module, attentions: list[Any], *, put_in: bool) -> None:
    """Have Hugging Face's configurations say what the attentions are."""
    hf = [attention for attention in attentions if _is_hf(attention)]
    if not hf:
        return
    adapter: Any = import_module(_HF)
    adapter.note_cores_(model)  # copies the configurations, which other models may share
    for attention in hf:
        if put_in:
            adapter.put_in_(model, attention)
        else:
            adapter.take_out_(attention)


def _check(view: BlockView, attention: Any, core: AttentionCore) -> None:
    causal = _is_hf(attention) and bool(getattr(attention, "is_causal", False))
    if causal and not core.causal_ok:
        raise InputError(f"{type(core).__name__} is bidirectional, and {view.name} is causal; use another core")
    if not core.drops:
        rate = getattr(attention, "attn_drop", getattr(attention, "dropout", None))
        rate = getattr(attention, "attention_dropout", getattr(rate, "p", rate)) or 0.0
        rate = getattr(getattr(attention, "attn_dropout", None), "p", rate)
        if rate:
            raise InputError(
                f"{view.name} drops attention weights at {rate:.3g}, and {type(core).__name__} has none: build the "
                "model with attention dropout 0"
            )
