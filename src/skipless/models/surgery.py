"""remove_skips_: the skip connections of other libraries' models left out."""

from collections.abc import Sequence
from typing import get_args

from torch import nn

from skipless.errors import InputError
from skipless.models.adapters.known import find_blocks
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, SubBlock


def block_views(model: nn.Module) -> list[BlockView]:
    """Give a view of every transformer block of the model, first to last.

    Raises:
        InputError: if the model has no block that an adapter knows.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> [(view.name, view.heads, tuple(view.w_q.shape)) for view in block_views(model)]
        [('blocks.0', 3, (192, 192)), ('blocks.1', 3, (192, 192))]
    """
    return [adapter.view(name, block) for adapter, name, block in find_blocks(model)]


def remove_skips_(
    model: nn.Module,
    sub_blocks: Sequence[SubBlock] = ("attn", "mlp"),
    *,
    layer_scale: LayerScaleChoice = "remove",
) -> nn.Module:
    """Leave out the skip connections of every block, in place: x = f(norm(x)) for x = x + f(norm(x)).

    Parameters and state-dict keys stay, so checkpoints load both ways; only the class of each block changes. The skips
    of the two sub-blocks are removed independently. A skip that is removed already stays removed.

    Args:
        model: a model with blocks that an adapter knows, or one such block's parent.
        sub_blocks: `"attn"`, `"mlp"` or both.
        layer_scale: what happens to LayerScale, which starts a residual branch near zero (1e-5). Without the skip this
            is the whole signal, and LayerNorm's eps dominates it. `"remove"` (default) removes LayerScale from the
            chosen sub-blocks, with its `gamma` keys; `"keep"` leaves it.

    Returns:
        The model.

    Raises:
        InputError: if no adapter knows the model, a name is unknown, or a sub-block has drop path. The model is then
            unchanged.

    Example:
        >>> import timm
        >>> model = remove_skips_(timm.create_model("vit_tiny_patch16_224", depth=2))
        >>> [view.skips for view in block_views(model)]
        [(), ()]
    """
    chosen = tuple(name for name in get_args(SubBlock) if name in sub_blocks)
    if isinstance(sub_blocks, str) or not chosen or not set(sub_blocks) <= set(chosen):
        raise InputError(f"sub_blocks={sub_blocks!r}: give a tuple of 'attn', 'mlp' or both")
    if layer_scale not in get_args(LayerScaleChoice):
        raise InputError(f"layer_scale={layer_scale!r} is not one of 'remove', 'keep'")
    found = find_blocks(model)
    for adapter, name, block in found:
        adapter.view(name, block)
        adapter.check_removable(name, block, chosen)
    for adapter, _, block in found:
        adapter.remove_skips_(block, chosen, layer_scale)
    for adapter in dict.fromkeys(adapter for adapter, _, _ in found):
        adapter.note_removed_(model, [adapter.view(name, block) for own, name, block in found if own is adapter])
    return model
