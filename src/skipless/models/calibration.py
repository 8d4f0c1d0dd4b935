"""calibrate_: the attention of every block given a mean diagonal on the tokens that reach it."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models.attention_diagonal import centre_queries_, scale_logits_
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.surgery import block_views
from skipless.models.vit_view import embed, find_vit

TOKENS = 197  # of a model that does not say how many it has
_SEED = 0  # of the normal tokens that stand in for images
_NORMAL = 4  # such images


@torch.no_grad()
def calibrate_(model: nn.Module, diagonal: float, *, images: Float[Tensor, "b c h w"] | None = None) -> nn.Module:
    """Scale the logits of every head so that its attention has a mean diagonal, in place.

    Without images the diagonal is that on normal tokens, which the paper supposes. Then alpha and beta need not be
    looked for at every width, head size and number of tokens.

    With images, each block is measured on the tokens that the blocks before it give, once these are scaled: one pass,
    without randomness. A logit gap is proportional to 1 - cosine of two tokens, so as tokens grow alike with depth,
    attention that is the same in all blocks needs ever larger logits. Queries are then measured from the mean token
    (`centre_queries_`). It holds tokens apart, and is worth knowing for what it costs: models trained from it did worse
    than those whose attention may grow diffuse with depth (docs/depth.md).

    Args:
        model: a model with blocks that an adapter knows.
        diagonal: mean A_ii, between 0 and 1.
        images: normalised images; without them, normal tokens, as many as the model makes of an image.

    Returns:
        The model.

    Raises:
        InputError: for a diagonal out of range, images of another size, or images for a model of blocks alone.

    Example:
        >>> from skipless.models import create_model, inspect_init
        >>> from skipless.init import SkiplessInit
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(0.0, 1.0), depth=2, seed=0)
        >>> images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        >>> report = inspect_init(calibrate_(model, 0.9, images=images), images=images)
        >>> [round(value, 2) for value in report.attention_diagonal]
        [0.9, 0.9]
    """
    if not 0 < diagonal < 1:
        raise InputError(f"diagonal={diagonal} is a mean weight: give a number between 0 and 1")
    views = block_views(model)
    with evaluating(model):
        x = first_tokens(model, views, images)
        for view in views:
            normed = view.attn_norm(x)
            if images is not None:
                centre_queries_(view, normed)
            scale_logits_(view, normed, diagonal)
            if images is not None:
                x = view.block(x)
    return model


def first_tokens(
    model: nn.Module, views: list[BlockView], images: Float[Tensor, "b c h w"] | None
) -> Float[Tensor, "b n d"]:
    """Tokens that enter the first block: of given images, or as many normal ones as the model makes of an image."""
    weight = views[0].query.weight
    if images is not None:
        return embed(find_vit(model), images.to(weight.device, weight.dtype))
    x = torch.randn(_NORMAL, token_count(model), views[0].dim, generator=Generator().manual_seed(_SEED))
    return x.to(weight.device, weight.dtype)


def token_count(model: nn.Module) -> int:
    """How many tokens a model makes of an image; `TOKENS` where it does not say."""
    try:
        found = find_vit(model)
    except InputError:
        return TOKENS
    if found.image_size is None:
        return TOKENS
    rows, columns = found.grid(*found.image_size)
    return found.prefix + rows * columns


def check_images(model: nn.Module, init: SkiplessInit, images: Float[Tensor, "b c h w"] | None) -> None:
    """Refuse images that the model does not take, and a model without places where `init` sets them.

    Raises:
        InputError: if that is so.
    """
    if init.positions == "kept" and images is None:
        return
    found = find_vit(model)
    if images is None:
        return
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise InputError(f"images of shape {tuple(images.shape)}, {images.dtype}: give normalised ones, (b, c, h, w)")
    with torch.no_grad():
        first_tokens(model, list(found.views), images[:1])
