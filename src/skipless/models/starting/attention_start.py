"""A core of attention put into a model that is being built, and how a model with it starts."""

import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.attention_config import AttentionConfig
from skipless.models.attention_core import replace_attention_, solve_attention_
from skipless.models.surgery import block_views
from skipless.models.text_view import find_text, find_texts
from skipless.models.vit_view import find_vit

_IMAGES, _TEXTS, _LONGEST = 32, 8, 1024  # what a scale is solved on


def put_attention_(model: nn.Module, attention: AttentionConfig) -> nn.Module:
    """Put what a configuration says in place of the softmax, in place; softmax leaves the model as it is.

    Raises:
        InputError: as `replace_attention_`; and if E-SPA or U-SPA is asked for in a model that takes any number of
            tokens.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=1)
        >>> put_attention_(model, AttentionConfig("shaped")).blocks[0].attn.core
        ShapedAttention()
    """
    if attention.is_softmax:
        return model
    needs_places = attention.core in ("e-spa", "u-spa")
    tokens, causal = _places(model, attention) if needs_places else (1, False)
    return replace_attention_(model, attention.core_of(tokens=tokens, depth=len(block_views(model)), causal=causal))


@torch.no_grad()
def start_attention_(model: nn.Module, attention: AttentionConfig) -> nn.Module:
    """Have a model with a core start as the configuration says, in place: W_Q = 0, a scale that is solved.

    A scale is solved on images whose pixels are normal, as those of normalised images are on average, or on token ids
    of one probability, from torch's global CPU generator.

    Raises:
        InputError: as `solve_attention_`.
    """
    if attention.queries_from_zero:
        for view in block_views(model):
            view.query.write_(torch.zeros_like(view.w_q))
    if attention.solved:
        given = _normal_batch(model)
        solve_attention_(model, **{"images" if given.is_floating_point() else "inputs": given})
    return model


def _places(model: nn.Module, attention: AttentionConfig) -> tuple[int, bool]:
    """How many tokens a model's sequences have, and whether they are causal."""
    texts = find_texts(model)
    if texts:
        if texts[0].length is None:
            raise InputError(f"{attention.core} is made for a number of tokens, and this model takes any")
        return texts[0].length, _is_causal(model)
    found = find_vit(model)
    if found.image_size is None:
        raise InputError(f"{attention.core} is made for a number of tokens, and this model takes images of any size")
    rows, columns = found.grid(*found.image_size)
    return found.prefix + rows * columns, False


def _is_causal(model: nn.Module) -> bool:
    return any(getattr(module, "is_causal", False) is True for module in model.modules())


def _normal_batch(model: nn.Module) -> Tensor:
    weight = block_views(model)[0].query.weight
    if find_texts(model):
        text = find_text(model)
        return torch.randint(text.vocabulary, (_TEXTS, min(text.length or _LONGEST, _LONGEST))).to(weight.device)
    found = find_vit(model)
    height, width = found.image_size or (16 * found.patch[0], 16 * found.patch[1])
    images = torch.randn(_IMAGES, found.channels, height, width, dtype=torch.float32)
    return images.to(weight.device, weight.dtype)
