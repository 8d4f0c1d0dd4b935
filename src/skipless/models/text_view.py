"""TextView: how a language model turns token ids into tokens, and what it gives its blocks besides."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.vit_view import Entering


@dataclass(frozen=True, eq=False)
class TextView:
    """A language model in the terms that initialisation and its checks need.

    Attributes:
        transformer: the module that has the blocks; the given model or a part of it.
        views: its blocks, first to last.
        dim: token width d.
        vocabulary: number of token ids.
        length: most tokens that it takes; None if it takes any number.
        final_norm: the norm that it applies last to tokens.
        enter: gives what enters the blocks for checked token ids.
    """

    transformer: nn.Module
    views: tuple[BlockView, ...]
    dim: int
    vocabulary: int
    length: int | None
    final_norm: nn.Module
    enter: Callable[[Int[Tensor, "b n"]], Entering]


def find_texts(model: nn.Module) -> list[TextView]:
    """Every language model in the model, of the adapters that know any; a library of images alone has none."""
    from skipless.models.adapters.known import adapters

    return [text for adapter in adapters() for text in getattr(adapter, "texts", lambda _: [])(model)]


def find_text(model: nn.Module) -> TextView:
    """Find the language model in a model, which may be wrapped.

    Raises:
        InputError: if there is not exactly one.
    """
    found = find_texts(model)
    if len(found) != 1:
        raise InputError(
            f"`{type(model).__name__}` has {len(found)} language models, not one: token ids are for Llama, Mistral, "
            "Qwen2, Qwen3, GPT-2 and BERT of transformers"
        )
    return found[0]


def check_ids(text: TextView, ids: Int[Tensor, "b n"]) -> None:
    """Refuse what is no batch of the model's token ids.

    Raises:
        InputError: if it is not.
    """
    if ids.ndim != 2 or not ids.numel() or ids.is_floating_point() or ids.is_complex():
        raise InputError(f"token ids of shape {tuple(ids.shape)}, {ids.dtype}: give integers, (b, n)")
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or most >= text.vocabulary:
        raise InputError(f"token ids from {least} to {most}: the model has 0 to {text.vocabulary - 1}")
    if text.length is not None and ids.shape[1] > text.length:
        raise InputError(f"{ids.shape[1]} token ids a row: the model takes {text.length}")


def enter_text(text: TextView, ids: Int[Tensor, "b n"]) -> tuple[Tensor, tuple[BlockView, ...]]:
    """Give the tokens that enter the first block, and the blocks as the model calls them.

    Raises:
        InputError: for ids that the model does not take.
    """
    check_ids(text, ids)
    tokens, contexts = text.enter(ids)
    if contexts is None:
        return tokens, text.views
    pairs = zip(text.views, contexts, strict=True)
    return tokens, tuple(view.in_context(context) for view, context in pairs)
