"""Tokens that enter a model's first block: of given images, or normal ones."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.surgery import block_views
from skipless.models.vit_view import enter, find_vit

TOKENS = 197  # of a model that does not say how many it has
_SEED = 0  # of the normal tokens that stand in for images
_NORMAL = 1024  # such tokens, at least


def first_tokens(
    model: nn.Module, views: list[BlockView], images: Float[Tensor, "b c h w"] | None
) -> tuple[Float[Tensor, "b n d"], list[BlockView]]:
    """Tokens that enter the first block: of given images, or as many normal ones as the model makes of an image.

    The blocks come with them as the model calls them for such tokens.

    Raises:
        InputError: for images that the model does not take, or images for a model of blocks alone.
    """
    weight = views[0].query.weight
    if images is not None:
        found = find_vit(model)
        check_images(images)
        tokens, own = enter(found, images.to(weight.device, weight.dtype))
        return tokens, list(own)
    count = token_count(model)
    sizes = (-(-_NORMAL // count), count, views[0].dim)
    generator = Generator("cpu").manual_seed(_SEED)
    normal = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
    return normal.to(weight.device, weight.dtype), _in_own_context(model, views)


def _in_own_context(model: nn.Module, views: list[BlockView]) -> list[BlockView]:
    """The blocks as the model calls them for an image of the size that it was built for."""
    try:
        found = find_vit(model)
    except InputError:
        return views
    if found.image_size is None or not found.contextual:
        return views
    weight = views[0].query.weight
    blank = torch.zeros(1, found.channels, *found.image_size, dtype=weight.dtype, device=weight.device)
    return list(enter(found, blank)[1])


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


def check_images(images: Float[Tensor, "b c h w"]) -> None:
    """Refuse what is no batch of normalised images.

    Raises:
        InputError: if it is not.
    """
    if images.ndim != 4 or not images.numel() or not images.is_floating_point():
        raise InputError(f"images of shape {tuple(images.shape)}, {images.dtype}: give normalised ones, (b, c, h, w)")
    if not images.isfinite().all():
        raise InputError("some pixels of the images are not finite: give normalised images")


@torch.no_grad()
def check_taken(model: nn.Module, images: Float[Tensor, "b c h w"]) -> None:
    """Refuse images that the model does not take.

    Raises:
        InputError: if it does not take them.
    """
    check_images(images)
    first_tokens(model, block_views(model), images[:1])
