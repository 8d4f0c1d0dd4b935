"""FLOPs of a vision transformer, counted from its blocks: one multiplication and one addition are two FLOPs.

As usual, only matrix products are counted, not norms, softmax, activations and additions. A backward pass is twice the
forward pass, minus the gradient of the images, which is not computed. Recomputation by fused attention or gradient
checkpointing is not included.
"""

from torch import nn

from skipless.errors import InputError
from skipless.models import BlockView, block_views
from skipless.models.vit_view import find_vit
from skipless.nn import PolynomialAttention

# Cores that multiply the n x n matrix of every head twice, as softmax attention does.
_COUNTED = ("PolynomialAttention", "ShapedAttention", "ValueSkipInit", "ExponentialSPA", "UniformSPA")


def token_count(model: nn.Module, image_size: int) -> int:
    """Return the number of tokens of a square image: patches, class token and register tokens.

    Raises:
        InputError: if the image size is not a multiple of the patch size.
    """
    found = find_vit(model)
    height, width = found.patch
    if image_size % height or image_size % width:
        raise InputError(f"images of {image_size} pixels do not fall into patches of {height} x {width}")
    return (image_size // height) * (image_size // width) + found.prefix


def forward_flops(model: nn.Module, image_size: int) -> int:
    """Return the FLOPs of the forward pass of one image.

    Raises:
        InputError: if no adapter knows the model, or it uses attention pooling.

    Example:
        >>> from skipless.models import create_model
        >>> round(forward_flops(create_model("vit_small_patch16_224"), 224) / 1e9, 2)
        9.2
    """
    tokens = token_count(model, image_size)
    return (
        _embedding_flops(model, tokens)
        + sum(block_flops(view, tokens) for view in block_views(model))
        + sum(head_flops(head) for head in heads(model))
    )


def heads(model: nn.Module) -> list[nn.Module]:
    """The classifiers of a model: one, or two where DeiT has one for each of two tokens."""
    found = (getattr(model, name, None) for name in ("head", "head_dist", "heads"))
    return [head for head in found if isinstance(head, nn.Module)]


def backward_flops(model: nn.Module, image_size: int) -> int:
    """Return the FLOPs of the backward pass of one image, without the gradient of the image."""
    tokens = token_count(model, image_size)
    return 2 * forward_flops(model, image_size) - _embedding_flops(model, tokens)


def block_flops(view: BlockView, tokens: int) -> int:
    """Return the FLOPs of one block: 2 n per weight, and 4 n^2 h d_h for the quadratic part of attention.

    Polynomial and shaped attention, V-SkipInit, E-SPA and U-SPA have the two products of softmax attention; x^1 has two
    of n d_h^2.

    Raises:
        InputError: for orthogonal attention, whose exponential of a matrix has no fixed number of products, and for a
            core of a user's own.
    """
    if view.core is not None and type(view.core).__name__ not in _COUNTED:
        raise InputError(
            f"{view.name} has {type(view.core).__name__} for the softmax, whose work is not counted: plan the model "
            "with softmax attention (restore_attention_), or watch a run by `skipless doctor`"
        )
    inner = view.heads * view.head_dim
    # x^1 of all tokens is linear: Q (K^T V) makes no n x n matrix
    linear = isinstance(view.core, PolynomialAttention) and view.core.power == 1
    others = view.head_dim if linear and not getattr(view.attn, "is_causal", False) else tokens
    return 2 * tokens * sum(m.w.numel() for m in view.maps) + 4 * tokens * others * inner


def head_flops(head: nn.Module) -> int:
    """Return the FLOPs of a head of linear maps for one vector; the last weight of DINO's head is `weight_v`."""
    weights = [module.weight for module in head.modules() if isinstance(module, nn.Linear)]
    weights += [p for name, p in head.named_parameters() if name.endswith("weight_v")]
    return 2 * sum(weight.numel() for weight in weights)


def _embedding_flops(model: nn.Module, tokens: int) -> int:
    found = find_vit(model)
    if getattr(found.transformer, "attn_pool", None) is not None:
        raise InputError("this model pools its tokens by attention, whose work is not counted; plan one that does not")
    return 2 * (tokens - found.prefix) * found.positions.weights[0].numel()
