"""calibrate_: the attention of every block given a mean diagonal on the tokens that reach it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.starting.attention_diagonal import centre_queries_, check_scalable, scale_logits_
from skipless.models.starting.first_tokens import first_tokens, one_of
from skipless.models.surgery import block_views


@torch.no_grad()
def calibrate_(
    model: nn.Module,
    diagonal: float | Sequence[float | Sequence[float]],
    *,
    images: Float[Tensor, "b c h w"] | None = None,
    inputs: Int[Tensor, "b n"] | None = None,
) -> nn.Module:
    """Scale the logits of every head, first block to last, so that its attention has a mean diagonal, in place.

    So alpha and beta need not be looked for at every width, head size, number of tokens and depth. A logit gap is
    proportional to 1 - cosine of two tokens. As tokens grow alike with depth, one (alpha, beta) for all blocks gives
    attention that grows diffuse, which makes tokens more alike still. Each block is therefore measured on the tokens
    that the blocks before it give, once these are scaled, and its queries are measured from the mean token
    (`centre_queries_`). It is one pass, without randomness.

    Args:
        model: a model with blocks that an adapter knows.
        diagonal: mean A_ii, between 0 and 1; one for all blocks, one a block, or for each block one a head.
        images: normalised images. By default normal tokens, as many as the model makes of an image, enter the first
            block. Those of a language model are as many as it takes, up to 1,024, and its blocks see them as the model
            has them, with rotary positions and masks.
        inputs: token ids, for a language model.

    Returns:
        The model.

    Raises:
        InputError: for diagonals out of range or of another number, images that the model does not take, images for a
            model of blocks alone, or qk-norm without a weight. The model is then unchanged.

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
    _check_targets(views, targets, diagonal)
    for view in views:
        check_scalable(view)
    with evaluating(model):
        x, views = first_tokens(model, views, one_of(images, inputs))
        for view, target in zip(views, targets, strict=True):
            normed = view.attn_norm(x)
            centre_queries_(view, normed)
            scale_logits_(view, normed, target)
            x = view.run(x)
    return model


def _check_targets(views: list[BlockView], targets: list[Any], given: object) -> None:
    """Refuse diagonals of another number than blocks, or heads, and those that are no weights."""
    by_head = [target if isinstance(target, Sequence) else (target,) for target in targets]
    if len(targets) != len(views) or not all(0 < value < 1 for heads in by_head for value in heads):
        raise InputError(f"diagonal={given}: give a number between 0 and 1, or one for each of {len(views)} blocks")
    for view, target, heads in zip(views, targets, by_head, strict=True):
        if isinstance(target, Sequence) and len(heads) != view.heads:
            raise InputError(f"diagonal: {len(heads)} numbers for {view.name}, which has {view.heads} heads")
