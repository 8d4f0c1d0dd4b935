"""Tokens that enter a model's first block: of given images or token ids, or normal ones."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.surgery import block_views
from skipless.models.text_view import TextView, enter_text, find_text, find_texts
from skipless.models.vit_view import enter, find_vit

TOKENS = 197  # of a model that does not say how many it has
_SEED = 0  # of the normal tokens that stand in for images
_NORMAL = 1024  # such tokens, at least; and at most of a language model's longest input

Given = Float[Tensor, "b c h w"] | Int[Tensor, "b n"]  # normalised images, or token ids


def first_tokens(
    model: nn.Module, views: list[BlockView], given: Given | None
) -> tuple[Float[Tensor, "b n d"], list[BlockView]]:
    """Tokens that enter the first block: of given images or token ids, or normal ones, as many as the model expects.

    The blocks come with them as the model calls them for such tokens.

    Raises:
        InputError: for images or ids that the model does not take, or such for a model of blocks alone.
    """
    weight = views[0].query.weight
    if given is not None and given.ndim == 2:
        tokens, own = enter_text(find_text(model), given.to(weight.device))
        return tokens, _named(own, views)
    if given is not None:
        found = find_vit(model)
        check_images(given)
        tokens, own = enter(found, given.to(weight.device, weight.dtype))
        return tokens, list(own)
    count = token_count(model)
    sizes = (-(-_NORMAL // count), count, views[0].dim)
    generator = Generator("cpu").manual_seed(_SEED)
    normal = torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu")
    return normal.to(weight.device, weight.dtype), in_own_context(model, views, count)[0]


def in_own_context(model: nn.Module, views: list[BlockView], count: int) -> tuple[list[BlockView], int]:
    """The blocks as the model calls them for some input of its own, and how many tokens that has.

    A language model takes as many token ids as are asked for, or as it can. A vision transformer with rotary positions
    takes an image of the size that it was built for. Every other model calls its blocks with tokens alone.
    """
    text = _only_text(model)
    if text is not None:
        count = count if text.length is None else min(count, text.length)
        ids = torch.zeros(1, count, dtype=torch.long, device=views[0].query.weight.device)
        with evaluating(model):
            return _named(enter_text(text, ids)[1], views), count
    try:
        found = find_vit(model)
    except InputError:
        return views, count
    if found.image_size is None or not found.contextual:
        return views, count
    weight = views[0].query.weight
    blank = torch.zeros(1, found.channels, *found.image_size, dtype=weight.dtype, device=weight.device)
    with evaluating(model), torch.no_grad():
        own = enter(found, blank)[1]
    rows, columns = found.grid(*found.image_size)
    return _named(own, views), found.prefix + rows * columns


def _named(own: tuple[BlockView, ...], views: list[BlockView]) -> list[BlockView]:
    """The blocks by their paths in the whole model."""
    return [replace(one, name=view.name) for one, view in zip(own, views, strict=True)]


def _only_text(model: nn.Module) -> TextView | None:
    """The one language model in a model; None if there is none, or several."""
    found = find_texts(model)
    return found[0] if len(found) == 1 else None


def text_length(model: nn.Module) -> int | None:
    """How many tokens a language model takes, up to 1,024; None of any other model."""
    text = _only_text(model)
    return None if text is None else min(text.length or _NORMAL, _NORMAL)


def token_count(model: nn.Module) -> int:
    """How many tokens a model makes of an image, or takes, up to 1,024; `TOKENS` where it does not say."""
    length = text_length(model)
    if length is not None:
        return length
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
def check_taken(model: nn.Module, given: Given) -> None:
    """Refuse images or token ids that the model does not take.

    Raises:
        InputError: if it does not take them.
    """
    if given.ndim != 2:
        check_images(given)
    first_tokens(model, block_views(model), given[:1])


def one_of(images: Tensor | None, inputs: Tensor | None) -> Tensor | None:
    """What is given of images and token ids.

    Raises:
        InputError: if both are.
    """
    if images is not None and inputs is not None:
        raise InputError("give images or inputs (token ids), not both")
    return images if inputs is None else inputs
