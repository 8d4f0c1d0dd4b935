"""quantise_: A and B of trained adapters as codebooks of a few entries (arXiv 2505.21895), the sine after it."""

from typing import Any, TypeVar

import torch
from torch import nn

from skipless.adapters.attach import chosen, layers_of
from skipless.adapters.k_means import k_means, nearest
from skipless.adapters.layer import SineLinear
from skipless.errors import InputError

_Model = TypeVar("_Model", bound=nn.Module)
_FACTORS = ("A", "B")


@torch.no_grad()
def quantise_(model: _Model, bits: int | None, adapter: str | None = None) -> _Model:
    """Give A and B of trained adapters codebooks of 2^bits values each, by k-means, in place (arXiv 2505.21895).

    Each matrix has a codebook of its own, and is replaced by the nearest entries. The sine comes after:
    sin(omega Q(B) Q(A)) / g. This is post-training quantisation: A and B are frozen.

    A sine adapter is then saved packed, as indices of `bits` bits and a codebook, and comes back to the bit. In memory
    its values are floats as before. An adapter of plain LoRA, for comparison, gets the same values, but PEFT saves it
    whole.

    Args:
        model: a `PeftModel` with adapters of linear maps.
        bits: 1 to 8; the paper has 1 to 5. None makes a quantised adapter an ordinary one: values stay, and are trained
            and saved whole.
        adapter: its name; by default those that are active.

    Raises:
        InputError: for another number of bits; if there is no such adapter; if it is in embeddings, is merged, or has
            values that are not finite.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> from skipless.adapters import sine_
        >>> config = LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
        >>> model = quantise_(sine_(get_peft_model(nn.Sequential(nn.Linear(16, 8)), config)), bits=2)
        >>> len(model.base_model.model[0].lora_A["default"].weight.unique())
        4
    """
    if bits is not None and not 1 <= bits <= 8:
        raise InputError(f"bits={bits}: give 1 to 8, or None for an adapter that is not quantised")
    for name in chosen(model, adapter):
        layers = layers_of(model, name)
        for place, layer in layers.items():
            _check(layer, name, place)
        for layer in layers.values():
            _quantise(layer, name, bits)
    return model


def _check(layer: Any, adapter: str, place: str) -> None:
    if adapter not in layer.lora_A:
        raise InputError(f"{place}: A and B of embeddings are not quantised; leave them out of target_modules")
    if adapter in layer.merged_adapters:
        raise InputError(f"{place}: adapter {adapter!r} is merged; call unmerge_adapter first")
    for letter in _FACTORS:
        if not getattr(layer, f"lora_{letter}")[adapter].weight.isfinite().all():
            raise InputError(f"{place}: {letter} of adapter {adapter!r} has values that are not finite")


def _quantise(layer: Any, adapter: str, bits: int | None) -> None:
    packed = isinstance(layer, SineLinear) and adapter in layer.lora_sine
    for letter in _FACTORS:
        weight = getattr(layer, f"lora_{letter}")[adapter].weight
        codebook = None if bits is None else k_means(weight, 1 << bits)
        if codebook is not None:
            weight.copy_(nearest(weight, codebook))
        weight.requires_grad_(codebook is None)
        if packed:
            setattr(layer.lora_sine[adapter], f"codebook_{letter.lower()}", codebook)
