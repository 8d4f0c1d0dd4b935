"""What timm's transformers have in common: MLPs, drop path, patch embeddings, images of other sizes."""

# pyright: reportPrivateImportUsage=false
# timm.layers does not declare its re-exports.

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import DropPath, Format, GluMlp, Mlp, PatchEmbed, SwiGLU
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.parts import kept_skips, norm_modules, skip_gains
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.vit_view import Entering, Positions, ViTView, per_channel


def mlp_inputs(name: str, mlp: nn.Module, supported: str) -> tuple[LinearMap, ...]:
    """The map from d to hidden; two maps in a gated MLP.

    Raises:
        InputError: for an MLP of another class.
    """
    if type(mlp) is Mlp and isinstance(mlp.fc1, nn.Linear):
        return LinearMap.parts(mlp.fc1)
    if type(mlp) is GluMlp and isinstance(mlp.fc1, nn.Linear):
        return LinearMap.parts(mlp.fc1, 2)
    if type(mlp) is SwiGLU:
        return (*LinearMap.parts(mlp.fc1_g), *LinearMap.parts(mlp.fc1_x))
    raise InputError(f"no adapter for the MLP `{type(mlp).__name__}` of {name}; supported: {supported}")


def gate_of(mlp: nn.Module, inputs: tuple[LinearMap, ...]) -> int | None:
    """Which of two input maps goes through the activation."""
    return None if len(inputs) == 1 else int(getattr(mlp, "gate_last", False))


def biased_maps(attn: Any) -> tuple[LinearMap, LinearMap, LinearMap]:
    """Queries, keys and values of a fused weight whose biases are parameters of the attention; keys have none."""
    query, key, value = LinearMap.parts(attn.qkv, 3)
    if attn.q_bias is None:
        return query, key, value
    whole = slice(0, len(attn.q_bias))
    return (
        LinearMap(attn.qkv.weight, attn.q_bias, query.rows, bias_rows=whole),
        key,
        LinearMap(attn.qkv.weight, attn.v_bias, value.rows, bias_rows=whole),
    )


def check_drop_path(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
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


def block_view(
    name: str,
    block: Any,
    projections: tuple[LinearMap, LinearMap, LinearMap],
    *,
    supported: str,
    scales: tuple[nn.Module, nn.Module],
    layer_scales: tuple[str, ...],
    position_biases: tuple[str, ...] = (),
) -> BlockView:
    """A pre-norm block of timm's in the paper's terms; heads are not grouped.

    Args:
        name: its path in the model.
        block: has `norm1`, `attn`, `norm2` and `mlp`, and the attention its output in `proj`.
        projections: W_Q, W_K, W_V.
        supported: what the adapter knows, for the error.
        scales: LayerScale after attention and MLP.
        layer_scales: names of the LayerScale parameters inside the block.
        position_biases: names of the parameters that are added to logits by relative position.

    Raises:
        InputError: for an MLP of an unknown class.
    """
    attn, mlp = block.attn, block.mlp
    query, key, value = projections
    mlp_in = mlp_inputs(name, mlp, supported)
    query_norm, key_norm = (getattr(attn, norm, nn.Identity()) for norm in ("q_norm", "k_norm"))
    return BlockView(
        name=name,
        block=block,
        dim=attn.proj.out_features,
        heads=attn.num_heads,
        key_heads=attn.num_heads,
        head_dim=attn.proj.in_features // attn.num_heads,
        logit_scale=attn.scale,
        attn=attn,
        mlp=mlp,
        attn_norm=block.norm1,
        mlp_norm=block.norm2,
        attn_scale=scales[0],
        mlp_scale=scales[1],
        query=query,
        key=key,
        value=value,
        output=LinearMap.parts(attn.proj)[0],
        query_norm=query_norm,
        key_norm=key_norm,
        mlp_in=mlp_in,
        mlp_out=LinearMap.parts(mlp.fc2)[0],
        activation=mlp.act,
        gate=gate_of(mlp, mlp_in),
        norms=norm_modules(block.norm1, block.norm2, query_norm, key_norm, getattr(attn, "norm", None), mlp.norm),
        layer_scales=layer_scales,
        skips=kept_skips(block),
        skip_gains=skip_gains(block),
        position_biases=position_biases,
    )


def vit_view(
    vit: Any,
    views: tuple[BlockView, ...],
    *,
    enter: Callable[[Float[Tensor, "b c h w"]], Entering],
    entrance: nn.Module,
    final_norm: nn.Module,
    any_size: bool = True,
    contextual: bool = False,
) -> ViTView:
    """How one of timm's vision transformers turns images into tokens.

    Raises:
        InputError: if its patch embedding is not timm's `PatchEmbed`.
    """
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
        views=views,
        patch=embedding.patch_size,
        prefix=vit.num_prefix_tokens,
        class_token=vit.cls_token is not None,
        channels=channels,
        dim=vit.embed_dim,
        image_size=None if embedding.img_size is None else tuple(embedding.img_size),
        any_size=any_size,
        mean=per_channel(config.get("mean", IMAGENET_DEFAULT_MEAN), channels),
        std=per_channel(config.get("std", IMAGENET_DEFAULT_STD), channels),
        final_norm=final_norm,
        enter=enter,
        feat_size=lambda height, width: embedding.dynamic_feat_size((height, width)),
        trims=bool(embedding.strict_img_size or embedding.dynamic_img_pad),
        positions=_positions(vit, embedding),
        contextual=contextual,
        entrance=entrance,
    )


def _positions(vit: Any, embedding: Any) -> Positions:
    tokens = (getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token"))
    return Positions(
        patch_embedding=embedding,
        weights=tuple(embedding.proj.parameters()),
        normed=not isinstance(embedding.norm, nn.Identity),
        embedding=vit.pos_embed,
        has_prefix=not getattr(vit, "no_embed_class", False),
        prefix=tuple(token for token in tokens if token is not None),
        grid=embedding.grid_size or (0, 0),
    )


@contextmanager
def any_image_size(vit: Any, images: Float[Tensor, "b c h w"]) -> Iterator[None]:
    """Give a model timm's settings for `dynamic_img_size=True`, and restore its own afterwards.

    Position embeddings are then interpolated as timm does it (bicubic, antialiased).
    """
    high, wide = vit.patch_embed.patch_size
    whole = not (images.shape[-2] % high or images.shape[-1] % wide)
    settings = [
        (vit, "dynamic_img_size", True),
        (vit.patch_embed, "strict_img_size", not whole),  # with True timm does not ask for whole patches
        (vit.patch_embed, "flatten", False),
        (vit.patch_embed, "output_fmt", Format.NHWC),
    ]
    if hasattr(getattr(vit, "rope", None), "_use_cached_embed"):  # or it ignores the size that it is asked for
        settings.append((vit.rope, "_use_cached_embed", False))
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        for place, name, value in settings:
            setattr(place, name, value)
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
