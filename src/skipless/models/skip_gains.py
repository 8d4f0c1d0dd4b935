"""set_skip_gains_: shortcuts that carry a part of their tokens, x <- a x + f(x), as arXiv 2404.10947 decays them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from skipless.errors import InputError
from skipless.models.adapters.known import find_blocks
from skipless.models.adapters.parts import put_gains_
from skipless.models.blocks import BlockView

Gain = float | tuple[float, float]
"""What the skips of a block multiply their tokens by; a pair of attention's and the MLP's."""

ZERO_UP_TO = 0.7
"""Where the last gain is at most this, the source starts the last map of each branch at 0."""


def decayed_gains(depth: int, last: float) -> tuple[float, ...]:
    """a_l = 1 - (1 - last) l / L of the blocks l = 1 to L (arXiv 2404.10947). Where l starts is not said there.

    Both skips of a block take its gain: at 12 blocks their product is then within the 1e-3 to 1e-2 of the source for
    `last` of 0.5 to 0.65, and with one gain a block it would not be.

    Args:
        depth: L.
        last: a_min; the source has 0.6 to 0.7, and finds 0.4 unstable.

    Raises:
        InputError: for less than one block, or a gain that is not above 0, or above 1.

    Example:
        >>> [round(gain, 2) for gain in decayed_gains(4, 0.6)]
        [0.9, 0.8, 0.7, 0.6]
    """
    if depth < 1 or not (math.isfinite(last) and 0 < last <= 1):
        raise InputError(f"decayed_gains({depth}, {last}): give one block or more, and a gain above 0, up to 1")
    return tuple(1 - (1 - last) * block / depth for block in range(1, depth + 1))


def set_skip_gains_(model: nn.Module, gains: float | Sequence[Gain]) -> nn.Module:
    """Have every skip multiply its tokens by a gain, in place: x = a x + f(norm(x)) for x = x + f(norm(x)).

    Parameters and state-dict keys stay, so checkpoints load both ways; only the class of each block changes, as by
    `remove_skips_`. A sub-block without a skip stays without. A gain of 1 gives the library's own result, to the bit.
    Hugging Face's models are saved and loaded with their gains.

    Args:
        model: has blocks that an adapter knows.
        gains: one for all skips, or one for each block, or a pair for each, attention and MLP; `decayed_gains` has a
            schedule. 0 stands for a skip that is not there, as in `BlockView.skip_gains`.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, there are not as many gains as blocks, or one is not above 0. The
            model is then unchanged.

    Example:
        >>> import timm
        >>> from skipless.models import block_views
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> [view.skip_gains for view in block_views(set_skip_gains_(model, decayed_gains(2, 0.5)))]
        [(0.75, 0.75), (0.5, 0.5)]
    """
    found = find_blocks(model)
    by_block: list[Any] = [gains] * len(found) if isinstance(gains, int | float) else list(gains)
    pairs = [(one, one) if isinstance(one, int | float) else tuple(one) for one in by_block]
    views = [adapter.view(name, block) for adapter, name, block in found]
    if len(pairs) != len(found) or not all(map(_fit, pairs, views)):
        raise InputError(
            f"gains {gains}: give a number above 0, or one for each of {len(found)} blocks; remove_skips_ leaves skips "
            "out"
        )
    for (adapter, _, block), (attn, mlp) in zip(found, pairs, strict=True):
        if hasattr(adapter, "set_skip_gains_"):
            adapter.set_skip_gains_(block, (float(attn), float(mlp)))  # pyright: ignore[reportAttributeAccessIssue]
        else:
            adapter.remove_skips_(block, (), "keep")
            put_gains_(block, (float(attn), float(mlp)))
    for adapter in dict.fromkeys(adapter for adapter, _, _ in found):
        adapter.note_removed_(model, [adapter.view(name, block) for own, name, block in found if own is adapter])
    return model


@torch.no_grad()
def zero_branches_(model: nn.Module) -> nn.Module:
    """Start every branch that has a skip beside it at 0, in place: W_O and the MLP's last map, with their biases."""
    for adapter, name, block in find_blocks(model):
        view = adapter.view(name, block)
        for sub_block, linear in (("attn", view.output), ("mlp", view.mlp_out)):
            if sub_block in view.skips:
                linear.write_(torch.zeros_like(linear.w))
    return model


def _fit(pair: tuple[Any, ...], view: BlockView) -> bool:
    """Whether a block can have these gains of attention and MLP."""
    there = [name in view.skips for name in ("attn", "mlp")]
    return len(pair) == 2 and all(
        _is_gain(gain) or (gain == 0 and not is_there) for gain, is_there in zip(pair, there, strict=True)
    )


def _is_gain(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
