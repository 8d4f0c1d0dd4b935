"""What a backbone gives to the head: a feature of each image, and its patch tokens, some of them masked."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skipless.choices import Pooling
from skipless.errors import InputError
from skipless.tasks.dino.config import DINOConfig


def encode(
    backbone: nn.Module,
    images: Tensor,
    pooling: Pooling,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a feature of each image (b, d) and its patch tokens (b, p, d), both after the backbone's last norm.

    The backbone's modules run as in its own forward pass, so that fused attention, compiled blocks, checkpointing and
    shards go on working, and nothing is added to its weights. With pooling `class` the feature is the backbone's own
    output. With `mean` it is the mean of the patch tokens *after* `norm`: timm's `global_pool="avg"` with
    `fc_norm=False`. A backbone that was built to pool before its norm (`fc_norm`) norms the mean instead, once.

    Args:
        backbone: a backbone that `check_tokens` has let pass.
        images: images of one size, (b, c, h, w).
        pooling: what the feature is.
        masked: patches, row by row, whose embedding is replaced before positions are added; (b, p).
        mask_token: what it is replaced by, (1, d).
    """
    # Shapes stand in the docstring: `torch.compile` traces this, and could not trace checks of them.
    vit: Any = backbone
    x = vit.patch_embed(images)
    if masked is not None and mask_token is not None:
        x = torch.where(masked.view(*x.shape[:-1], 1), mask_token.to(x.dtype), x)
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))
    for block in vit.blocks:
        x = checkpoint(block, x, use_reentrant=False) if vit.grad_checkpointing and block.training else block(x)
    x = vit.norm(x)
    patches = x[:, vit.num_prefix_tokens :]
    feature = vit.forward_head(x) if pooling == "class" else vit.head_drop(vit.fc_norm(patches.mean(1)))
    return feature, patches


def grid_of(backbone: nn.Module, images: Float[Tensor, "b c h w"]) -> tuple[int, int]:
    """Rows and columns of an image's patches."""
    vit: Any = backbone
    return tuple(vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:])))


def token_width(backbone: nn.Module) -> int:
    """Width of the patch tokens of a backbone that `check_tokens` has let pass."""
    vit: Any = backbone
    return vit.embed_dim


def check_tokens(backbone: nn.Module, config: DINOConfig) -> None:
    """Refuse a backbone that cannot give what the objective asks for.

    Raises:
        InputError: if mean pooling or a patch loss is asked of a backbone whose patch tokens are not known.
    """
    asked = "pooling='mean'" if config.pooling == "mean" else ""
    asked = f"patch_loss={config.patch_loss:g}" if config.patch_loss else asked
    if not asked:
        return
    kind, plain = type(backbone), VisionTransformer
    own = ("forward", "forward_features", "forward_head", "pool", "_pos_embed")
    if not isinstance(backbone, plain) or any(getattr(kind, name) is not getattr(plain, name) for name in own):
        raise InputError(f"{asked} needs patch tokens, and those of `{kind.__name__}` are not known: take a timm ViT")
    vit: Any = backbone
    if config.pooling == "mean" and vit.attn_pool is not None:
        raise InputError("pooling='mean': this backbone pools by attention; build it with global_pool='token'")
    if config.patch_loss and not isinstance(vit.patch_drop, nn.Identity):
        raise InputError(f"{asked}: this backbone drops patches at random; build it with patch_drop_rate=0")
