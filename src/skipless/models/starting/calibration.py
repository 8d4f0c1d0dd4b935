"""calibrate_: the attention of every block given a mean diagonal on the tokens that reach it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.starting.attention_diagonal import centre_queries_, scale_logits_
from skipless.models.surgery import block_views
from skipless.models.vit_view import embed, find_vit

TOKENS = 197  # of a model that does not say how many it has
_SEED = 0  # of the normal tokens that stand in for images
_NORMAL = 1024  # such tokens, at least


@torch.no_grad()
def calibrate_(
    model: nn.Module, diagonal: float | Sequence[float], *, images: Float[Tensor, "b c h w"] | None = None
) -> nn.Module:
    """Scale the logits of every head, first block to last, so that its attention has a mean diagonal, in place.

    So alpha and beta need not be looked for at every width, head size, number of tokens and depth. A logit gap is
    proportional to 1 - cosine of two tokens. As tokens grow alike with depth, one (alpha, beta) for all blocks gives
    attention that grows diffuse, which makes tokens more alike still. Each block is therefore measured on the tokens
    that the blocks before it give, once these are scaled, and its queries are measured from the mean token
    (`centre_queries_`). It is one pass, without randomness.

    Args:
        model: a model with blocks that an adapter knows.
        diagonal: mean A_ii, between 0 and 1; one for all blocks, or one a block.
        images: normalised images. By default normal tokens, as many as the model makes of an image, enter the first
            block.

    Returns:
        The model.

    Raises:
        InputError: for diagonals out of range or of another number, images of another size, or images for a model of
            blocks alone.

    Example:
        >>> from skipless.models import create_model, inspect_init
        >>> from skipless.init import SkiplessInit
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(0.0, 1.0), depth=2, seed=0)
        >>> images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        >>> report = inspect_init(calibrate_(model, 0.9, images=images), images=images)
        >>> [round(value, 2) for value in report.attention_diagonal]
        [0.9, 0.9]
    """
    views = block_views(model)
    targets = [diagonal] * len(views) if isinstance(diagonal, int | float) else list(diagonal)
    if len(targets) != len(views) or not all(0 < target < 1 for target in targets):
        raise InputError(f"diagonal={diagonal}: give a number between 0 and 1, or one for each of {len(views)} blocks")
    with evaluating(model):
        x = first_tokens(model, views, images)
        for view, target in zip(views, targets, strict=True):
            normed = view.attn_norm(x)
            centre_queries_(view, normed)
            scale_logits_(view, normed, target)
            x = view.block(x)
    return model


def first_tokens(
    model: nn.Module, views: list[BlockView], images: Float[Tensor, "b c h w"] | None
) -> Float[Tensor, "b n d"]:
    """Tokens that enter the first block: of given images, or as many normal ones as the model makes of an image."""
    weight = views[0].query.weight
    if images is not None:
        return embed(find_vit(model), images.to(weight.device, weight.dtype))
    count = token_count(model)
    x = torch.randn(-(-_NORMAL // count), count, views[0].dim, generator=Generator().manual_seed(_SEED))
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
