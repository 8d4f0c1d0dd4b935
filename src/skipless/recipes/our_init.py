"""Our initialisation in a recipe, and the learning rate and decay that go with a depth."""

from typing import TypeVar

from skipless.init.scheme import SkiplessInit
from skipless.recipes.recipe import Recipe

R = TypeVar("R", bound=Recipe)

BLOCK_LR = 4.0
"""Blocks learn at BLOCK_LR / depth of the rate of everything else. Without skips an update of relative size e in each
of L blocks moves what the network computes by about L e; embeddings and head do not multiply, and keep the rate. That
it is inverse in the depth is theory, that it is 4 was fitted at 12 blocks (docs/depth.md)."""

WEIGHT_DECAY = 0.1
"""Decoupled; `param_groups` divides that of blocks by their share of the rate, so that it is the same at every depth.
Fitted at 12 blocks (docs/depth.md)."""

_DEPTH = 12  # of timm's ViT, where a recipe does not name it


def with_our_init(recipe: R, weight_decay: float | None = WEIGHT_DECAY) -> R:
    """A recipe whose model starts by `SkiplessInit.for_any`, and whose blocks learn as their number asks.

    Args:
        recipe: of a model without skips.
        weight_decay: None leaves the recipe's.

    Example:
        >>> from skipless.recipes import table1
        >>> ours = with_our_init(table1("digits", "skipless").with_(model__kwargs={"embed_dim": 32, "depth": 36}))
        >>> ours.model.init.positions, round(ours.optimizer.block_lr, 3), ours.optimizer.weight_decay
        ('orthogonal', 0.111, 0.1)
    """
    depth = recipe.model.kwargs.get("depth", _DEPTH)
    return recipe.with_(
        model__init=SkiplessInit.for_any(),
        optimizer__block_lr=BLOCK_LR / depth,
        optimizer__weight_decay=weight_decay,
    )
