"""The adapter for timm's plain vision transformer.

A plain vision transformer has blocks of `timm.models.vision_transformer.Block` with timm's standard `Attention`. It may
have a class token or average pooling, registers, any MLP (plain, GLU, SwiGLU), a qkv bias, qk-norm and LayerScale. A
skip is removed by giving the block another class with the same parameters. So the state-dict keys stay, and everything
that works on the block goes on working.
"""

# pyright: reportPrivateImportUsage=false
# timm.layers does not declare its re-exports.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Attention, DropPath, Format, GluMlp, LayerScale, Mlp, PatchEmbed, SwiGLU
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.vit_view import Entering, Positions, ViTView, per_channel

SUPPORTED = "timm's plain VisionTransformer (Block with Attention and Mlp, GluMlp or SwiGLU)"


class SkiplessBlock(Block):
    """timm's pre-norm block in which each sub-block's skip connection can be left out (Eqs. 1 and 2 without `X +`).

    `remove_skips_` makes it from a `Block`; it is never constructed. Parameters, buffers and state-dict keys are the
    block's.
    """

    attn_skip: bool
    mlp_skip: bool

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """The forward of `Block`, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""
        y = self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal))
        x = x + self.drop_path1(y) if self.attn_skip else y
        y = self.ls2(self.mlp(self.norm2(x)))
        return x + self.drop_path2(y) if self.mlp_skip else y


_KNOWN = (Block, SkiplessBlock)  # exactly these: another subclass may have a forward of its own


def blocks(model: nn.Module) -> list[tuple[str, Block]]:
    """Every transformer block of the vision transformers in the model, with its path, first to last.

    `model` may wrap the transformer (`features_only`, `DistributedDataParallel`, `torch.compile`), or be one block or a
    sequence of blocks.

    Raises:
        InputError: if a block of a plain vision transformer is of another class. A model is converted whole or not at
            all.
    """
    if type(model) in _KNOWN:
        return [("", model)]  # pyright: ignore[reportReturnType]
    stacks = [(f"{name}.blocks.", m.blocks) for name, m in model.named_modules() if isinstance(m, VisionTransformer)]
    if not stacks and isinstance(model, nn.Sequential | nn.ModuleList):
        stacks = [("", model)]
    found = [(f"{path}{name}".lstrip("."), block) for path, stack in stacks for name, block in stack.named_children()]
    for name, block in found:
        if type(block) not in _KNOWN:
            raise InputError(f"no adapter for the block `{type(block).__name__}` at {name}; supported: {SUPPORTED}")
    return found  # pyright: ignore[reportReturnType]


def view(name: str, block: Block) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: if this adapter does not know the class of its attention or MLP.
    """
    attn: Any = block.attn
    mlp: Any = block.mlp
    if type(attn) is not Attention:
        raise InputError(f"no adapter for the attention `{type(attn).__name__}` of {name}; supported: {SUPPORTED}")
    query, key, value = LinearMap.parts(attn.qkv, 3)
    mlp_in = _mlp_in(name, mlp)
    norms = (block.norm1, block.norm2, attn.q_norm, attn.k_norm, getattr(attn, "norm", None), mlp.norm)
    return BlockView(
        name=name,
        block=block,
        dim=attn.qkv.in_features,
        heads=attn.num_heads,
        key_heads=attn.num_heads,
        head_dim=attn.head_dim,
        logit_scale=attn.scale,
        attn=attn,
        mlp=mlp,
        attn_norm=block.norm1,
        mlp_norm=block.norm2,
        attn_scale=block.ls1,
        mlp_scale=block.ls2,
        query=query,
        key=key,
        value=value,
        output=LinearMap.parts(attn.proj)[0],
        query_norm=attn.q_norm,
        key_norm=attn.k_norm,
        mlp_in=mlp_in,
        mlp_out=LinearMap.parts(mlp.fc2)[0],
        activation=mlp.act,
        gate=None if len(mlp_in) == 1 else int(getattr(mlp, "gate_last", False)),
        norms=tuple(norm for norm in norms if norm is not None and not isinstance(norm, nn.Identity)),
        layer_scales=tuple(f"{name}.gamma" for name in ("ls1", "ls2") if isinstance(getattr(block, name), LayerScale)),
        skips=skips(block),
    )


def _mlp_in(name: str, mlp: nn.Module) -> tuple[LinearMap, ...]:
    """The map from d to hidden; two maps in a gated MLP."""
    if type(mlp) is Mlp and isinstance(mlp.fc1, nn.Linear):
        return LinearMap.parts(mlp.fc1)
    if type(mlp) is GluMlp and isinstance(mlp.fc1, nn.Linear):
        return LinearMap.parts(mlp.fc1, 2)
    if type(mlp) is SwiGLU:
        return (*LinearMap.parts(mlp.fc1_g), *LinearMap.parts(mlp.fc1_x))
    raise InputError(f"no adapter for the MLP `{type(mlp).__name__}` of {name}; supported: {SUPPORTED}")


def skips(block: Block) -> tuple[SubBlock, ...]:
    """The sub-blocks that still have their skip connection."""
    if not isinstance(block, SkiplessBlock):
        return ("attn", "mlp")
    kept: dict[SubBlock, bool] = {"attn": block.attn_skip, "mlp": block.mlp_skip}
    return tuple(name for name, is_kept in kept.items() if is_kept)


def check_removable(name: str, block: Block, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse drop path in sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has drop path.
    """
    for sub_block, drop_path in (("attn", block.drop_path1), ("mlp", block.drop_path2)):
        if sub_block in sub_blocks and isinstance(drop_path, DropPath) and drop_path.drop_prob:
            raise InputError(
                f"{name} has drop path {drop_path.drop_prob:.3g}: it drops a whole branch and lets the skip carry the "
                "tokens, so without that skip it would erase them; build the model with drop_path_rate=0"
            )


def remove_skips_(block: Block, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> Block:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    kept = [name for name in skips(block) if name not in sub_blocks]
    block.__class__ = SkiplessBlock
    block.attn_skip = "attn" in kept  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    block.mlp_skip = "mlp" in kept  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
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
    if type(vit.patch_embed) is not PatchEmbed:
        raise InputError(
            f"no adapter for the patch embedding `{type(vit.patch_embed).__name__}`; supported: timm's PatchEmbed"
        )
    embedding: Any = vit.patch_embed
    channels = embedding.proj.in_channels
    config: Any = getattr(vit, "pretrained_cfg", None)
    config = config if isinstance(config, Mapping) else {}
    return ViTView(
        transformer=vit,
        views=tuple(view(name, block) for name, block in blocks(vit)),
        patch=embedding.patch_size,
        prefix=vit.num_prefix_tokens,
        class_token=vit.cls_token is not None,
        channels=channels,
        dim=vit.embed_dim,
        image_size=None if embedding.img_size is None else tuple(embedding.img_size),
        any_size=True,
        mean=per_channel(config.get("mean", IMAGENET_DEFAULT_MEAN), channels),
        std=per_channel(config.get("std", IMAGENET_DEFAULT_STD), channels),
        final_norm=vit.norm if isinstance(vit.fc_norm, nn.Identity) else vit.fc_norm,
        enter=partial(_enter, vit),
        feat_size=lambda height, width: embedding.dynamic_feat_size((height, width)),
        trims=bool(embedding.strict_img_size or embedding.dynamic_img_pad),
        positions=Positions(
            patch_embedding=embedding,
            weights=tuple(embedding.proj.parameters()),
            normed=not isinstance(embedding.norm, nn.Identity),
            embedding=vit.pos_embed,
            has_prefix=not vit.no_embed_class,
            prefix=tuple(token for token in (vit.cls_token, vit.reg_token) if token is not None),
            grid=embedding.grid_size or (0, 0),
        ),
    )


def _enter(vit: Any, images: Float[Tensor, "b c h w"]) -> Entering:
    """Position embeddings are interpolated as timm's `dynamic_img_size` does it (bicubic, antialiased)."""
    high, wide = vit.patch_embed.patch_size
    whole = not (images.shape[-2] % high or images.shape[-1] % wide)
    with _any_image_size(vit, strict=not whole):  # with strict=True timm does not ask for whole patches
        x = vit._pos_embed(vit.patch_embed(images))
    return Entering(vit.norm_pre(vit.patch_drop(x)))


@contextmanager
def _any_image_size(vit: Any, *, strict: bool) -> Iterator[None]:
    """Give a model timm's settings for `dynamic_img_size=True`, and restore its own afterwards."""
    settings = (
        (vit, "dynamic_img_size", True),
        (vit.patch_embed, "strict_img_size", strict),
        (vit.patch_embed, "flatten", False),
        (vit.patch_embed, "output_fmt", Format.NHWC),
    )
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
