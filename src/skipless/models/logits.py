"""next_token_logits: what a language model of any library predicts, as one tensor."""

from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

from skipless.errors import InputError


def next_token_logits(model: nn.Module, ids: Int64[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
    """Return a model's logits; of a model that returns an object, as Hugging Face's do, its `logits`.

    Keys and values are not kept: a model whose configuration has `use_cache` is called without.

    Args:
        model: maps ids to logits, or to an object with `logits`.
        ids: tokens.

    Raises:
        InputError: if what it returns is no logits for every token.

    Example:
        >>> import torch
        >>> next_token_logits(nn.Embedding(5, 7), torch.zeros(2, 3, dtype=torch.int64)).shape
        torch.Size([2, 3, 7])
    """
    cached = hasattr(getattr(model, "config", None), "use_cache")
    found: Any = model(ids, use_cache=False) if cached else model(ids)
    logits = getattr(found, "logits", found)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != ids.shape:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"`{type(model).__name__}` returned {shape} for ids {tuple(ids.shape)}, not logits (b, t, v): give a model "
            "that predicts the next token of each"
        )
    return logits
