"""The adapter for timm's `Eva`: EVA-02, DINOv3, Perception Encoder and others, with rotary positions.

Queries and keys of patches are turned by their positions, those of class token and registers are not. The angles are
one table for all blocks (EVA-02, DINOv3, Perception Encoder) or one for each block and head (mixed). Projections are
fused or split, keys have no bias in most of these models, and LayerScale is a parameter of the block.
"""

# pyright: reportPrivateImportUsage=false
# timm.layers does not declare its re-exports.

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.parts import become_, joined, library_class, scale_of, stacked_blocks
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.adapters.timm_parts import (
    any_image_size,
    biased_maps,
    block_view,
    check_drop_path,
    vit_view,
)
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.calls import BlockContext
from skipless.models.vit_view import Entering, ViTView

SUPPORTED = "timm's Eva (EvaBlock: EVA-02, DINOv3, Perception Encoder)"

_REFUSED = {
    "EvaBlockPostNorm": "it norms what a branch gives, x + norm(f(x)), so f takes tokens that no norm precedes, and "
    "the paper's f(norm(x)) is not what is left without the skip",
}
_GAMMAS: tuple[tuple[SubBlock, str], ...] = (("attn", "gamma_1"), ("mlp", "gamma_2"))


class SkiplessEvaBlock(EvaBlock):
    """timm's `EvaBlock` in which each sub-block's skip connection can be left out; made by `remove_skips_`."""

    attn_skip: float
    mlp_skip: float

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """The forward of `EvaBlock`, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""
        y = self.attn(self.norm1(x), rope=rope, attn_mask=attn_mask, is_causal=is_causal)
        if self.gamma_1 is not None:
            y = self.gamma_1 * y
        x = joined(x, self.drop_path1(y), self.attn_skip) if self.attn_skip else y
        y = self.mlp(self.norm2(x))
        if self.gamma_2 is not None:
            y = self.gamma_2 * y
        return joined(x, self.drop_path2(y), self.mlp_skip) if self.mlp_skip else y


_KNOWN = (EvaBlock, SkiplessEvaBlock)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block of the `Eva` models in the model, with its path, first to last.

    Raises:
        InputError: if one has blocks of another class, as with post-norm.
    """
    return stacked_blocks(model, Eva, "blocks", _KNOWN, SUPPORTED, _REFUSED)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: if its attention or its MLP is of an unknown class, or has a gate or grouped heads.
    """
    _check_attention(name, block.attn)
    return block_view(
        name,
        block,
        _projections(block.attn),
        supported=SUPPORTED,
        scales=(scale_of(block.gamma_1), scale_of(block.gamma_2)),
        layer_scales=tuple(gamma for _, gamma in _GAMMAS if getattr(block, gamma) is not None),
    )


def _check_attention(name: str, attn: Any) -> None:
    if library_class(attn) not in (EvaAttention, AttentionRope):
        raise InputError(f"no adapter for the attention `{type(attn).__name__}` of {name}; supported: {SUPPORTED}")
    if attn.gate is not None:
        raise InputError(f"the attention of {name} has a gate on its output, which the scheme has no rule for")
    groups = getattr(attn, "num_kv_groups", 1)
    if groups > 1:
        raise InputError(
            f"the attention of {name} has grouped heads, {groups} queries to a key: its W_V W_O has rank "
            f"{attn.kv_dim} of {attn.attn_dim} at most, and is no scaled rotation; build it with num_kv_heads=None"
        )


def _projections(attn: Any) -> tuple[LinearMap, LinearMap, LinearMap]:
    if attn.qkv is None:
        query, key, value = (LinearMap.parts(linear)[0] for linear in (attn.q_proj, attn.k_proj, attn.v_proj))
    elif library_class(attn) is EvaAttention:
        query, key, value = biased_maps(attn)
    else:
        query, key, value = LinearMap.parts(attn.qkv, 3)
    return query, key, value


def check_removable(name: str, block: nn.Module, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse drop path in sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has drop path.
    """
    check_drop_path(name, block, sub_blocks)


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    become_(block, SkiplessEvaBlock, sub_blocks)
    if layer_scale == "remove":
        for sub_block, gamma in _GAMMAS:
            if sub_block in sub_blocks:
                setattr(block, gamma, None)
    return block


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Nothing: timm keeps neither the names of its blocks' classes nor a configuration that says what they are."""


def vits(model: nn.Module) -> list[ViTView]:
    """How every `Eva` in the model turns images into tokens.

    Raises:
        InputError: if the patch embedding of one is not timm's `PatchEmbed`.
    """
    return [_vit(module) for module in model.modules() if isinstance(module, Eva)]


def _vit(vit: Any) -> ViTView:
    return vit_view(
        vit,
        tuple(view(name, block) for name, block in blocks(vit)),
        enter=partial(_enter, vit),
        entrance=vit.norm_pre,
        final_norm=vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm,
        contextual=vit.rope is not None,
    )


def _enter(vit: Any, images: Float[Tensor, "b c h w"]) -> Entering:
    """Images of the model's own size go its own way, in which it may keep angles; others as with `dynamic_img_size`."""
    if not vit.dynamic_img_size and tuple(images.shape[-2:]) == tuple(vit.patch_embed.img_size):
        x, angles = vit._pos_embed(vit.patch_embed(images))
    else:
        with any_image_size(vit, images):
            x, angles = vit._pos_embed(vit.patch_embed(images))
    x = vit.norm_pre(x)
    if angles is None:
        return Entering(x)
    each = tuple(angles) if vit.rope_mixed else (angles,) * len(vit.blocks)
    return Entering(x, tuple(_context(block.attn, own) for block, own in zip(vit.blocks, each, strict=True)))


def _context(attn: Any, angles: Tensor) -> BlockContext:
    given = {"rope": angles}
    return BlockContext(given, given, _Rotation(angles, attn.num_prefix_tokens, attn.rotate_half))


@dataclass(frozen=True, eq=False)
class _Rotation:
    """Turns queries or keys by the positions of their patches; prefix tokens stay."""

    angles: Tensor
    prefix: int
    half: bool

    def __call__(self, x: Float[Tensor, "b h n k"]) -> Float[Tensor, "b h n k"]:
        turned = apply_rot_embed_cat(x[:, :, self.prefix :], self.angles, half=self.half)
        return torch.cat([x[:, :, : self.prefix], turned], dim=2)
