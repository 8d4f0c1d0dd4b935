"""The adapter for torchvision's `VisionTransformer`: vit_b_16, vit_l_32 and the like.

Its head starts at zero, so the first step's gradient of everything before the head is zero. It takes images of the size
that it was built for.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock, VisionTransformer

from skipless.errors import InputError
from skipless.models.adapters.parts import (
    become_,
    check_dropout,
    kept_skips,
    norm_modules,
    skip_gains,
    stacked_blocks,
)
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.adapters.torch_mha import check_mha, mha_maps
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.vit_view import Entering, Positions, ViTView

SUPPORTED = "torchvision's VisionTransformer"

# What torchvision normalises the images of its pretrained ViTs by (transforms of `ViT_B_16_Weights` and the others).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SkiplessEncoderBlock(EncoderBlock):
    """torchvision's block in which each sub-block's skip connection can be left out; made by `remove_skips_`."""

    attn_skip: float
    mlp_skip: float

    def forward(self, input: Tensor) -> Tensor:
        """The forward of `EncoderBlock`, in which `attn_skip` and `mlp_skip` switch the two `+` on or off."""
        torch._assert(input.dim() == 3, f"Expected (batch_size, seq_length, hidden_dim) got {input.shape}")
        x = self.ln_1(input)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x)
        if self.attn_skip:  # written out: `torch.fx` and `torch.jit`, which torchvision's tools use, read this method
            x = x + input if self.attn_skip == 1 else x + self.attn_skip * input
        y = self.mlp(self.ln_2(x))
        if self.mlp_skip:
            y = x + y if self.mlp_skip == 1 else self.mlp_skip * x + y
        return y


_KNOWN = (EncoderBlock, SkiplessEncoderBlock)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block of the vision transformers in the model, with its path, first to last.

    Raises:
        InputError: if one has blocks of another class.
    """
    return stacked_blocks(model, VisionTransformer, "encoder.layers", _KNOWN, SUPPORTED)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: if its attention or its MLP is of an unknown class.
    """
    mlp = block.mlp
    if type(mlp) is not MLPBlock:
        raise InputError(f"no adapter for the MLP `{type(mlp).__name__}` of {name}; supported: {SUPPORTED}")
    layers: Any = list(mlp)  # linear, activation, dropout, linear, dropout
    return BlockView(
        name=name,
        block=block,
        **mha_maps(check_mha(name, block.self_attention)),
        mlp=mlp,
        attn_norm=block.ln_1,
        mlp_norm=block.ln_2,
        attn_scale=nn.Identity(),
        mlp_scale=nn.Identity(),
        mlp_in=LinearMap.parts(layers[0]),
        mlp_out=LinearMap.parts(layers[3])[0],
        activation=layers[1],
        gate=None,
        norms=norm_modules(block.ln_1, block.ln_2),
        layer_scales=(),
        skips=kept_skips(block),
        skip_gains=skip_gains(block),
    )


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse dropout behind sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has it.
    """
    check_dropout(name, {"attn": block.dropout, "mlp": block.mlp[4]}, sub_blocks)


def remove_skips_(block: nn.Module, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    return become_(block, SkiplessEncoderBlock, sub_blocks)


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Nothing: torchvision keeps neither the names of its blocks' classes nor a configuration."""


def vits(model: nn.Module) -> list[ViTView]:
    """How every vision transformer of torchvision's in the model turns images into tokens.

    Raises:
        InputError: if one has a stem of several convolutions.
    """
    return [_vit(module) for module in model.modules() if isinstance(module, VisionTransformer)]


def _vit(vit: Any) -> ViTView:
    stem = vit.conv_proj
    if type(stem) is not nn.Conv2d:
        raise InputError(f"no adapter for the patch embedding `{type(stem).__name__}`; supported: one nn.Conv2d")
    patch, side = vit.patch_size, vit.image_size
    return ViTView(
        transformer=vit,
        views=tuple(view(name, block) for name, block in blocks(vit)),
        patch=(patch, patch),
        prefix=1,
        class_token=True,
        channels=stem.in_channels,
        dim=vit.hidden_dim,
        image_size=(side, side),
        any_size=False,
        mean=_MEAN,
        std=_STD,
        final_norm=vit.encoder.ln,
        enter=partial(_enter, vit),
        feat_size=lambda height, width: (height // patch, width // patch),
        trims=False,
        positions=Positions(
            patch_embedding=stem,
            weights=tuple(stem.parameters()),
            normed=False,
            embedding=vit.encoder.pos_embedding,
            has_prefix=True,
            prefix=(vit.class_token,),
            grid=(side // patch, side // patch),
        ),
        entrance=vit.encoder.dropout,
    )


def _enter(vit: Any, images: Float[Tensor, "b c h w"]) -> Entering:
    patches = vit._process_input(images)
    x = torch.cat([vit.class_token.expand(len(patches), -1, -1), patches], dim=1)
    return Entering(vit.encoder.dropout(x + vit.encoder.pos_embedding))
