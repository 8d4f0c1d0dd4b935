"""The adapter for timm's plain vision transformer.

A plain vision transformer has blocks of `timm.models.vision_transformer.Block` with timm's standard `Attention`. It may
have a class token or average pooling, registers, DeiT's distillation token, any MLP (plain, GLU, SwiGLU), a qkv bias,
qk-norm and LayerScale. A skip is removed by giving the block another class with the same parameters. So the state-dict
keys stay, and everything that works on the block goes on working.
"""

# pyright: reportPrivateImportUsage=false
# timm.layers does not declare its re-exports.

from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from timm.layers import Attention, LayerScale
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.parts import become_, joined, library_class, stacked_blocks
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.adapters.timm_parts import any_image_size, block_view, check_drop_path, vit_view
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.vit_view import Entering, ViTView

SUPPORTED = "timm's plain VisionTransformer (Block with Attention and Mlp, GluMlp or SwiGLU)"

_PARALLEL = "attention and MLP stand side by side under one skip, so neither has a skip of its own to leave out"
_REFUSED = {
    "ResPostBlock": "it norms what a branch gives, x + norm(f(x)), so f takes tokens that no norm precedes, and the "
    "paper's f(norm(x)) is not what is left without the skip",
    "ParallelScalingBlock": _PARALLEL,
    "DiffParallelScalingBlock": f"{_PARALLEL}, and its attention is a difference of two softmaxes",
    "ParallelThingsBlock": "several attentions, then several MLPs, share one skip, and a sum of scaled rotations is "
    "none",
}


class SkiplessBlock(Block):
    """timm's pre-norm block in which each sub-block's skip connection can be left out (Eqs. 1 and 2 without `X +`).

    `remove_skips_` makes it from a `Block`; it is never constructed. Parameters, buffers and state-dict keys are the
    block's.
    """

    attn_skip: float
    mlp_skip: float

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """The forward of `Block`, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""
        y = self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))
        x = joined(x, self.drop_path1(y), self.attn_skip) if self.attn_skip else y
        y = self.ls2(self.mlp(self.norm2(x)))
        return joined(x, self.drop_path2(y), self.mlp_skip) if self.mlp_skip else y


_KNOWN = (Block, SkiplessBlock)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every transformer block of the vision transformers in the model, with its path, first to last.

    Raises:
        InputError: if a block of a plain vision transformer is of another class.
    """
    return stacked_blocks(model, VisionTransformer, "blocks", _KNOWN, SUPPORTED, _REFUSED)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: if this adapter does not know the class of its attention or MLP.
    """
    attn = block.attn
    if library_class(attn) is not Attention:
        raise InputError(f"no adapter for the attention `{type(attn).__name__}` of {name}; supported: {SUPPORTED}")
    query, key, value = LinearMap.parts(attn.qkv, 3)
    return block_view(
        name,
        block,
        (query, key, value),
        supported=SUPPORTED,
        scales=(block.ls1, block.ls2),
        layer_scales=tuple(f"{name}.gamma" for name in ("ls1", "ls2") if isinstance(getattr(block, name), LayerScale)),
    )


def check_removable(name: str, block: nn.Module, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse drop path in sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has drop path.
    """
    check_drop_path(name, block, sub_blocks)


def remove_skips_(block: nn.Module, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    become_(block, SkiplessBlock, sub_blocks)
    if layer_scale == "remove":
        for sub_block, name in (("attn", "ls1"), ("mlp", "ls2")):
            if sub_block in sub_blocks and isinstance(getattr(block, name), LayerScale):
                setattr(block, name, nn.Identity())
    return block


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Nothing: timm keeps neither the names of its blocks' classes nor a configuration that says what they are."""


def vits(model: nn.Module) -> list[ViTView]:
    """How every plain vision transformer in the model turns images into tokens.

    Raises:
        InputError: if the patch embedding of one is not timm's `PatchEmbed`.
    """
    return [_vit(module) for module in model.modules() if isinstance(module, VisionTransformer)]


def _vit(vit: Any) -> ViTView:
    return vit_view(
        vit,
        tuple(view(name, block) for name, block in blocks(vit)),
        enter=partial(_enter, vit),
        entrance=vit.norm_pre,
        final_norm=vit.norm if isinstance(vit.fc_norm, nn.Identity) else vit.fc_norm,
    )


def _enter(vit: Any, images: Float[Tensor, "b c h w"]) -> Entering:
    with any_image_size(vit, images):
        x = vit._pos_embed(vit.patch_embed(images))
    return Entering(vit.norm_pre(vit.patch_drop(x)))
