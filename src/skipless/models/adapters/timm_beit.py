"""The adapter for timm's `Beit`: BEiT, BEiT v2 and models of its kind.

Logits have a bias by relative position, of each block or shared by all. Queries and values have biases of their own
beside the fused weight, keys have none, and LayerScale is a parameter of the block.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.models import beit
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.parts import become_, joined, library_class, scale_of, stacked_blocks
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.adapters.timm_parts import biased_maps, block_view, check_drop_path, vit_view
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.calls import BlockContext
from skipless.models.vit_view import Entering, ViTView

SUPPORTED = "timm's Beit"

_GAMMAS: tuple[tuple[SubBlock, str], ...] = (("attn", "gamma_1"), ("mlp", "gamma_2"))


class SkiplessBeitBlock(beit.Block):
    """timm's block of BEiT in which each sub-block's skip connection can be left out; made by `remove_skips_`."""

    attn_skip: float
    mlp_skip: float

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """The forward of BEiT's block, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""
        y = self.attn(self.norm1(x), shared_rel_pos_bias=shared_rel_pos_bias)
        if self.gamma_1 is not None:
            y = self.gamma_1 * y
        x = joined(x, self.drop_path1(y), self.attn_skip) if self.attn_skip else y
        y = self.mlp(self.norm2(x))
        if self.gamma_2 is not None:
            y = self.gamma_2 * y
        return joined(x, self.drop_path2(y), self.mlp_skip) if self.mlp_skip else y


_KNOWN = (beit.Block, SkiplessBeitBlock)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block of the `Beit` models in the model, with its path, first to last.

    Raises:
        InputError: if one has blocks of another class.
    """
    return stacked_blocks(model, beit.Beit, "blocks", _KNOWN, SUPPORTED)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: if its attention or its MLP is of an unknown class.
    """
    attn = block.attn
    if library_class(attn) is not beit.Attention:
        raise InputError(f"no adapter for the attention `{type(attn).__name__}` of {name}; supported: {SUPPORTED}")
    return block_view(
        name,
        block,
        biased_maps(attn),
        supported=SUPPORTED,
        scales=(scale_of(block.gamma_1), scale_of(block.gamma_2)),
        layer_scales=tuple(gamma for _, gamma in _GAMMAS if getattr(block, gamma) is not None),
        position_biases=() if attn.relative_position_bias_table is None else ("attn.relative_position_bias_table",),
    )


def check_removable(name: str, block: nn.Module, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse drop path in sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has drop path.
    """
    check_drop_path(name, block, sub_blocks)


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    become_(block, SkiplessBeitBlock, sub_blocks)
    if layer_scale == "remove":
        for sub_block, gamma in _GAMMAS:
            if sub_block in sub_blocks:
                setattr(block, gamma, None)
    return block


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Nothing: timm keeps neither the names of its blocks' classes nor a configuration that says what they are."""


def vits(model: nn.Module) -> list[ViTView]:
    """How every `Beit` in the model turns images into tokens.

    Raises:
        InputError: if the patch embedding of one is not timm's `PatchEmbed`.
    """
    return [_vit(module) for module in model.modules() if isinstance(module, beit.Beit)]


def _vit(vit: Any) -> ViTView:
    views = tuple(view(name, block) for name, block in blocks(vit))
    return vit_view(
        vit,
        views,
        enter=partial(_enter, vit),
        entrance=vit.pos_drop,
        final_norm=vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm,
        any_size=False,  # positions and biases are of one window; timm has `set_input_size` for another
        contextual=vit.rel_pos_bias is not None or any(one.position_biases for one in views),
    )


def _enter(vit: Any, images: Float[Tensor, "b c h w"]) -> Entering:
    x = vit.patch_embed(images)
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1)
    x = vit.pos_drop(x if vit.pos_embed is None else x + vit.pos_embed)
    shared = None if vit.rel_pos_bias is None else vit.rel_pos_bias()
    contexts = tuple(_context(block.attn, shared) for block in vit.blocks)
    return Entering(x, None if all(context.bias is None for context in contexts) else contexts)


def _context(attn: Any, shared: Tensor | None) -> BlockContext:
    """What a block is given, the bias of all blocks, and what its logits get, that bias and its own."""
    given = {} if shared is None else {"shared_rel_pos_bias": shared}
    biases = [] if shared is None else [shared.flatten(0, -3)]
    if attn.relative_position_bias_table is not None:
        biases.append(attn._get_rel_pos_bias()[0])
    return BlockContext(given, given, bias=torch.stack(biases).sum(0) if biases else None)
