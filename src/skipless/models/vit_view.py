"""ViTView: how a plain ViT turns images into tokens, by patches, prefix tokens, position embeddings and final norm."""

# pyright: reportPrivateImportUsage=false
# timm.layers does not declare its re-exports.

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Format, PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models import timm_vit
from skipless.models.blocks import BlockView, LinearMap


@dataclass(frozen=True, eq=False)
class ViTView:
    """A plain vision transformer in the terms that feature extraction needs.

    Attributes:
        transformer: the module that has the blocks; the given model or a part of it.
        views: its blocks, first to last.
        patch: height and width of a patch in pixels (timm's `patch_size`).
        prefix: number of tokens (class, registers) before those of the patches (timm's `num_prefix_tokens`).
        class_token: whether the first token is a class token.
        channels: number of image channels.
        dim: token width d.
        image_size: height and width that it was built for; None if it takes any size.
        mean, std: per-channel normalisation of its pretrained configuration.
        final_norm: the norm that it applies last: `norm`, or `fc_norm` if the model pools before its norm.
    """

    transformer: nn.Module
    views: tuple[BlockView, ...]
    patch: tuple[int, int]
    prefix: int
    class_token: bool
    channels: int
    dim: int
    image_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    final_norm: nn.Module

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that `embed` makes of an image of this size in pixels."""
        embedding: Any = self.transformer.patch_embed
        return tuple(embedding.dynamic_feat_size((height, width)))


def find_vit(model: nn.Module) -> ViTView:
    """Find the vision transformer in a model, which may be wrapped (`torch.compile`, `DistributedDataParallel`).

    Raises:
        InputError: if there is not exactly one, if no adapter knows one of its blocks, or if its patch embedding is not
            timm's `PatchEmbed`.

    Example:
        >>> import timm
        >>> found = find_vit(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> found.patch, found.prefix, found.dim, found.image_size
        ((16, 16), 1, 192, (224, 224))
    """
    found = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    if len(found) != 1:
        raise InputError(
            (
                f"`{type(model).__name__}` has {len(found)} vision transformers, not one"
                if found
                else f"no adapter for `{type(model).__name__}`"
            )
            + f"; supported: {timm_vit.SUPPORTED}"
        )
    vit: Any = found[0]
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
        views=tuple(timm_vit.view(name, block) for name, block in timm_vit.blocks(vit)),
        patch=tuple(embedding.patch_size),
        prefix=vit.num_prefix_tokens,
        class_token=vit.cls_token is not None,
        channels=channels,
        dim=vit.embed_dim,
        image_size=None if embedding.img_size is None else tuple(embedding.img_size),
        mean=_per_channel(config.get("mean", IMAGENET_DEFAULT_MEAN), channels),
        std=_per_channel(config.get("std", IMAGENET_DEFAULT_STD), channels),
        final_norm=vit.norm if isinstance(vit.fc_norm, nn.Identity) else vit.fc_norm,
    )


def embed(model: ViTView, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
    """Give the tokens that enter the first block: prefix tokens, then patches row by row.

    Position embeddings are interpolated to the images' size as timm's `dynamic_img_size` does it (bicubic,
    antialiased); the model itself is unchanged afterwards. Images of the size that the model was built for need not be
    whole patches: timm's patch embedding then drops or pads the rest, as it does without us.

    Raises:
        InputError: if the size is neither a multiple of the patch size nor the model's own size, or the number of
            channels is not the model's.
    """
    height, width = images.shape[-2:]
    vit: Any = model.transformer
    whole = not (height % model.patch[0] or width % model.patch[1])
    built_for = (height, width) == model.image_size and (
        vit.patch_embed.strict_img_size or vit.patch_embed.dynamic_img_pad
    )
    if not (whole or built_for) or not height * width:
        raise InputError(
            f"images of {height} x {width} are not whole patches of {model.patch[0]} x {model.patch[1]}; resize them, "
            "or pad them with skipless.evaluators.features.extraction.pad_to_patch"
        )
    if images.shape[1] != model.channels:
        raise InputError(f"images have {images.shape[1]} channels, the model takes {model.channels}")
    with _any_image_size(vit, strict=not whole):  # with strict=True timm does not ask for whole patches
        x = vit._pos_embed(vit.patch_embed(images))
    return vit.norm_pre(vit.patch_drop(x))


def projection_module(view: BlockView, linear: LinearMap) -> nn.Module:
    """Find the module in a block's attention that applies a linear map, alone or fused with others (qkv).

    Raises:
        InputError: if no module of the attention holds the map's weight.
    """
    for module in view.attn.modules():
        if getattr(module, "weight", None) is linear.weight:
            return module
    raise InputError(
        f"the attention of {view.name} does not apply its projections as modules; their outputs cannot be read"
    )


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


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; if the model's channels are not RGB, each gets the mean of the three."""
    values = tuple(float(value) for value in values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels
