"""Position embeddings and prefix tokens at the size of the patch embeddings."""

from typing import get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.choices import Positions
from skipless.errors import InputError
from skipless.init import orthogonal_positions, smooth_positions
from skipless.init.validate import check_choice
from skipless.models.starting.first_tokens import check_taken
from skipless.models.vit_view import ViTView, find_vit


@torch.no_grad()
def set_positions_(
    model: nn.Module,
    kind: Positions,
    scale: float = 1.0,
    *,
    images: Float[Tensor, "b c h w"] | None = None,
    generator: Generator | None = None,
) -> nn.Module:
    """Give position embeddings, class and register tokens rows of the patch embeddings' size, in place.

    Where the position embedding has rows for the prefix tokens, these carry them and the tokens start at 0.

    Args:
        model: a model that contains one vision transformer that an adapter knows.
        kind: `"orthogonal"` or `"smooth"`, whose prefix tokens are orthogonal all the same.
        scale: size relative to the patch embeddings' root mean square.
        images: normalised images to measure that on. Without them it is computed for pixels of mean square 1.
        generator: source of randomness.

    Returns:
        The model.

    Raises:
        InputError: if there is not exactly one plain vision transformer, it has nothing to set or does not take the
            images, or for another kind or a scale that is not positive. The model is then unchanged.

    Example:
        >>> import timm
        >>> model = set_positions_(timm.create_model("vit_tiny_patch16_224", depth=1), "orthogonal")
        >>> round((model.pos_embed.square().mean() / patch_rms(model) ** 2).item(), 3)
        1.0
    """
    found = check_positions(model, kind)
    places = found.positions
    if images is not None:
        check_taken(model, images)
    rms = scale * patch_rms(found, images)
    embedded = 0 if places.embedding is None else places.embedding.shape[1]
    covered = _covered(found)
    patches = max(embedded - covered, 0)
    if kind == "orthogonal":
        rows = orthogonal_positions(found.prefix + patches, found.dim, rms, generator=generator)
    else:
        first = [orthogonal_positions(found.prefix, found.dim, rms, generator=generator)] if found.prefix else []
        down, across = places.grid if patches else (0, 0)
        grid = [smooth_positions(down, across, found.dim, rms, generator=generator)] if patches else []
        rows = torch.cat([*first, *grid])
    if places.embedding is not None:
        places.embedding.copy_(torch.cat((rows[:covered], rows[found.prefix :]))[None])
    start = 0
    for token in places.prefix:
        stop = start + token.shape[1]
        token.copy_(torch.zeros_like(token) if start < covered else rows[None, start:stop])
        start = stop
    return model


def _covered(found: ViTView) -> int:
    """How many prefix tokens have rows in the position embedding."""
    places = found.positions
    if places.embedding is None or not places.has_prefix:
        return 0
    return found.prefix if places.covered is None else places.covered


def check_positions(model: nn.Module, kind: str) -> ViTView:
    """Refuse a model without places for positions; give the view of its vision transformer.

    Raises:
        InputError: if there is not exactly one plain vision transformer, or it has nothing to set, or for another kind.
    """
    check_choice("positions", kind, tuple(one for one in get_args(Positions) if one != "kept"))
    found = find_vit(model)
    if found.positions.embedding is None and not found.positions.prefix:
        raise InputError(
            f"`{type(found.transformer).__name__}` has neither a position embedding nor prefix tokens: positions='kept'"
        )
    return found


@torch.no_grad()
def patch_rms(model: nn.Module | ViTView, images: Float[Tensor, "b c h w"] | None = None) -> float:
    """Root mean square of the patch embeddings: of given images, or expected for pixels of mean square 1.

    The weights of a patch embedding are drawn independently of each other, so the mean square of w x is that of w times
    the sum of squares of x, whether the pixels of a patch are alike or not.

    Raises:
        InputError: if there is no plain vision transformer, or the embedding is 0 or not finite.
    """
    found = model if isinstance(model, ViTView) else find_vit(model)
    places = found.positions
    if images is not None:
        weight = places.weights[0]
        square = places.patch_embedding(images.to(weight.device, weight.dtype)).double().square().mean()
    elif places.normed:
        square = torch.ones((), dtype=torch.float64)
    else:
        square = torch.stack([w.double().square().sum() for w in places.weights]).sum() / found.dim
    rms = float(square) ** 0.5
    if not 0 < rms < float("inf"):
        raise InputError(f"the patch embedding has the root mean square {rms}: draw its weights first")
    return rms
