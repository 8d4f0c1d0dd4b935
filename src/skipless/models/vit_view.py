"""ViTView: how a vision transformer turns images into tokens, by patches, prefix tokens and position embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView, LinearMap
from skipless.models.calls import BlockContext


class Entering(NamedTuple):
    """What enters the blocks.

    Attributes:
        tokens: prefix tokens, then patches row by row, `(b, t, d)`.
        contexts: what each block is called with besides; None if with nothing.
    """

    tokens: Tensor
    contexts: tuple[BlockContext, ...] | None = None


@dataclass(frozen=True, eq=False)
class Positions:
    """Where a vision transformer keeps what tells positions apart, besides rotary embeddings.

    Attributes:
        patch_embedding: gives the patch embeddings of images.
        weights: the weight of its projection, and the bias if there is one.
        normed: whether a norm follows the projection.
        embedding: the position embedding, `(1, n, d)`, if there is one.
        has_prefix: whether its first rows are those of the prefix tokens.
        prefix: class and register tokens, `(1, p, d)`, in the order in which they enter.
        grid: rows and columns of the embedding's patches.
        covered: how many of the prefix tokens the embedding has rows for, where not all of them; None stands for all if
            `has_prefix`, else for none.
    """

    patch_embedding: Callable[[Tensor], Tensor]
    weights: tuple[Tensor, ...]
    normed: bool
    embedding: nn.Parameter | None
    has_prefix: bool
    prefix: tuple[nn.Parameter, ...]
    grid: tuple[int, int]
    covered: int | None = None


@dataclass(frozen=True, eq=False)
class ViTView:
    """A vision transformer in the terms that feature extraction and initialisation need.

    Attributes:
        transformer: the module that has the blocks; the given model or a part of it.
        views: its blocks, first to last.
        patch: height and width of a patch in pixels.
        prefix: number of tokens (class, registers) before those of the patches.
        class_token: whether the first token is a class token.
        channels: number of image channels.
        dim: token width d.
        image_size: height and width that it was built for; None if it takes any size.
        any_size: whether it takes images of other whole patches, too.
        mean, std: per-channel normalisation of its pretrained configuration.
        final_norm: the norm that it applies last to tokens.
        enter: gives what enters the blocks for checked images.
        feat_size: rows and columns of patches for height and width in pixels.
        trims: whether images of `image_size` may have a rest that makes no whole patch.
        positions: where it keeps positions.
        contextual: whether it calls blocks with more than tokens, as with rotary positions.
        entrance: the module whose output enters the first block; None if that is no module's.
    """

    transformer: nn.Module
    views: tuple[BlockView, ...]
    patch: tuple[int, int]
    prefix: int
    class_token: bool
    channels: int
    dim: int
    image_size: tuple[int, int] | None
    any_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    final_norm: nn.Module
    enter: Callable[[Tensor], Entering]
    feat_size: Callable[[int, int], tuple[int, int]]
    trims: bool
    positions: Positions
    contextual: bool = False
    entrance: nn.Module | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that `embed` makes of an image of this size in pixels."""
        return self.feat_size(height, width)


def find_vit(model: nn.Module) -> ViTView:
    """Find the vision transformer in a model, which may be wrapped (`torch.compile`, `DistributedDataParallel`).

    Raises:
        InputError: if there is not exactly one, or no adapter knows its blocks or its patch embedding.

    Example:
        >>> import timm
        >>> found = find_vit(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> found.patch, found.prefix, found.dim, found.image_size
        ((16, 16), 1, 192, (224, 224))
    """
    from skipless.models.adapters.known import adapters, no_adapter, supported

    found = [vit for adapter in adapters() for vit in adapter.vits(model)]
    if len(found) > 1:
        raise InputError(
            f"`{type(model).__name__}` has {len(found)} vision transformers, not one; supported: {supported()}"
        )
    if not found:
        raise no_adapter(type(model).__name__)
    return found[0]


def embed(model: ViTView, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
    """Give the tokens that enter the first block: prefix tokens, then patches row by row.

    Where a model has a position embedding of one size and takes others, it is interpolated as the library does it; the
    model itself is unchanged afterwards. Images of the size that the model was built for need not be whole patches: the
    library then drops or pads the rest, as it does without us.

    Raises:
        InputError: if the size is neither a multiple of the patch size nor the model's own size, or the number of
            channels is not the model's.
    """
    return _entering(model, images).tokens


def enter(model: ViTView, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b t d"], tuple[BlockView, ...]]:
    """Give the tokens that enter the first block, and the blocks as the model calls them for such images.

    Raises:
        InputError: as for `embed`.
    """
    tokens, contexts = _entering(model, images)
    if contexts is None:
        return tokens, model.views
    pairs = zip(model.views, contexts, strict=True)
    return tokens, tuple(view.in_context(context) for view, context in pairs)


def _entering(model: ViTView, images: Float[Tensor, "b c h w"]) -> Entering:
    height, width = images.shape[-2:]
    whole = not (height % model.patch[0] or width % model.patch[1])
    own = (height, width) == model.image_size
    if not (whole or (own and model.trims)) or not height * width:
        raise InputError(
            f"images of {height} x {width} are not whole patches of {model.patch[0]} x {model.patch[1]}; resize them, "
            "or pad them with skipless.evaluators.features.extraction.pad_to_patch"
        )
    if not (own or model.any_size):
        raise InputError(
            f"images of {height} x {width}: `{type(model.transformer).__name__}` takes those of {model.image_size} "
            f"only; resize them, by --size {model.image_size[0] if model.image_size else 0} of a study"
        )
    if images.shape[1] != model.channels:
        raise InputError(f"images have {images.shape[1]} channels, the model takes {model.channels}")
    return model.enter(images)


def projection_module(view: BlockView, linear: LinearMap) -> nn.Module | None:
    """Find the module in a block's attention whose outputs are a linear map's, alone or fused with others (qkv).

    There is none where the attention itself holds the weight, or adds the bias. A module that is found need not be
    called: its attention may use its weight alone.
    """
    for module in view.attn.modules():
        if getattr(module, "weight", None) is linear.weight:
            return module if getattr(module, "bias", None) is linear.bias else None
    return None


def project(x: Float[Tensor, "b n i"], linear: LinearMap) -> Float[Tensor, "b n o"]:
    """Apply a linear map with its bias."""
    return nn.functional.linear(x, linear.w.mT, linear.b)


def per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """One number for each channel; if the model's channels are not RGB, each gets the mean of the three."""
    values = tuple(float(value) for value in values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels
