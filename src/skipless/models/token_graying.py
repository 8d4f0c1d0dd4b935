"""Insert Token Graying or conditioned tokens into a model, and measure kappa of the tokens that enter its blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.known import adapters
from skipless.models.vit_view import find_vit
from skipless.nn import ConditionedTokens, TokenGraying

_ATTRIBUTE = "_skipless_token_graying"


class _Hook:
    """A forward hook that may be copied and pickled with its model."""

    def __init__(self, graying: TokenGraying | ConditionedTokens) -> None:
        self.graying = graying

    def __call__(self, module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        return self.graying(tokens)


def insert_token_graying_(model: nn.Module, graying: TokenGraying | ConditionedTokens | None = None) -> nn.Module:
    """Apply Token Graying, or `ConditionedTokens`, to the tokens that enter the first block, in place.

    It has no parameters. It is a forward hook of the last module before the blocks, timm's `norm_pre`. So module names,
    state-dict keys and `forward_features` stay, and checkpoints load both ways. Insert it before `torch.compile` or a
    distributed wrapper.

    Args:
        model: a model that contains exactly one vision transformer that an adapter knows.
        graying: the layer; `TokenGraying()` by default. A model has one of the two kinds at most.

    Returns:
        The model.

    Raises:
        InputError: if there is not exactly one vision transformer, or it has Token Graying already. A language model is
            refused: both layers mix all tokens, which leaks the future of a causal model.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=1)
        >>> keys = list(model.state_dict())
        >>> list(insert_token_graying_(model, TokenGraying(0.7, "dct")).state_dict()) == keys
        True
    """
    _check_bidirectional(model)
    entrance = _entrance(model)
    if hasattr(entrance, _ATTRIBUTE):
        raise InputError("the model has Token Graying already; take it out first with remove_token_graying_")
    # A plain attribute, because a submodule would appear among the model's names.
    object.__setattr__(entrance, _ATTRIBUTE, entrance.register_forward_hook(_Hook(graying or TokenGraying())))
    return model


def remove_token_graying_(model: nn.Module) -> nn.Module:
    """Remove Token Graying from a model, in place; a model without it stays as it is."""
    entrance = _entrance(model)
    if hasattr(entrance, _ATTRIBUTE):
        getattr(entrance, _ATTRIBUTE).remove()
        object.__delattr__(entrance, _ATTRIBUTE)
    return model


def find_token_graying(model: nn.Module) -> list[TokenGraying | ConditionedTokens]:
    """All Token Graying that has been inserted into a model or any of its parts."""
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    return [hook.graying for hook in hooks if isinstance(hook, _Hook)]


@torch.no_grad()
def input_kappas(
    tokens: Float[Tensor, "b n d"], grayings: Sequence[TokenGraying | ConditionedTokens]
) -> list[Float[Tensor, " b"]]:
    """kappa(X) of each image's tokens, in float64: first of the tokens as they are, then after each graying.

    Example:
        >>> x = torch.diag(torch.tensor([4.0, 1.0, 0.25]))[None]
        >>> [round(kappa.item(), 3) for kappa in input_kappas(x, [TokenGraying(0.5, "svd")])]
        [16.0, 4.0]
    """
    wide = tokens.double()
    spectra = [torch.linalg.svdvals(x) for x in (wide, *(graying(wide) for graying in grayings))]
    if any((s[:, -1] <= 0).any() for s in spectra):
        raise InputError("some image's tokens are singular: their condition number is no number")
    return [s[:, 0] / s[:, -1] for s in spectra]


def _check_bidirectional(model: nn.Module) -> None:
    """Refuse language models."""
    for adapter in adapters():
        for text in getattr(adapter, "texts", lambda _: [])(model):
            raise InputError(
                f"`{type(text.transformer).__name__}` is a language model: U V^T and the DCT mix all tokens of a "
                "sequence, which shows a causal model its future; use them in bidirectional models of images"
            )


def _entrance(model: nn.Module) -> nn.Module:
    """The module whose output enters the first block."""
    found = find_vit(model)
    if found.entrance is None:
        raise InputError(
            f"Token Graying is for models a module of which gives what enters the first block; "
            f"`{type(found.transformer).__name__}` has none"
        )
    return found.entrance
