"""What writes to a model's stream and reads from it outside its blocks, by family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView
from skipless.models.surgery import block_views

Write = Callable[[Tensor], Tensor]
SUPPORTED = "timm's plain VisionTransformer, and causal Llama, Mistral, Qwen2 and Qwen3 of transformers"
_CAUSAL = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, eq=False)
class Stream:
    """The tokens between a model's blocks.

    Attributes:
        views: the blocks.
        dim: token width d.
        centred: whether norms centre tokens, so that what writes to the stream can be centred in their place.
        turn_: turns what is outside the blocks, and takes folded gains out of norms, given what turns writers and the
            matrix that does.
    """

    views: tuple[BlockView, ...]
    dim: int
    centred: bool
    turn_: Callable[[Write, Tensor], None]


def stream_of(model: nn.Module) -> Stream:
    """The stream of a model of a family that is known.

    Raises:
        InputError: for any other model; it says what is missing.
    """
    kind = type(model)
    if kind.__module__ == "timm.models.vision_transformer" and kind.__name__ == "VisionTransformer":
        return _of_timm(model)
    if kind.__module__.startswith("transformers.models.") and kind.__name__.removeprefix("Skipless") in _CAUSAL:
        return _of_llama(model)
    views = block_views(model)
    why = (
        "its norms follow the sums, so no rotation commutes with them"
        if views[0].post_norm
        else ("what writes to its stream before the blocks, and reads it after them, is not listed")
    )
    raise InputError(f"`{kind.__name__}` cannot be rotated: {why}; known: {SUPPORTED}")


def _of_timm(vit: Any) -> Stream:
    views = tuple(block_views(vit))
    kept = {
        "a norm before its blocks (norm_pre)": not isinstance(vit.norm_pre, nn.Identity),
        "a norm of patches": not isinstance(vit.patch_embed.norm, nn.Identity),
        "attention pooling": vit.attn_pool is not None,
        "a patch embedding that is no convolution": not isinstance(vit.patch_embed.proj, nn.Conv2d),
    }
    norms = [vit.norm, vit.fc_norm, *(norm for view in views for norm in (view.attn_norm, view.mlp_norm))]
    kept["norms other than LayerNorm"] = any(not isinstance(one, nn.LayerNorm | nn.Identity) for one in norms)
    kept["no norm behind its blocks"] = all(isinstance(one, nn.Identity) for one in (vit.norm, vit.fc_norm))
    kept["two norms behind its blocks"] = not any(isinstance(one, nn.Identity) for one in (vit.norm, vit.fc_norm))
    _refuse("VisionTransformer", kept)
    return Stream(views, vit.embed_dim, True, lambda write, q: _turn_timm_(vit, views, write, q))


def _refuse(name: str, kept: dict[str, bool]) -> None:
    for what, is_there in kept.items():
        if is_there:
            raise InputError(f"`{name}` cannot be rotated: it has {what}, through which no rotation is folded yet")


def _turn_timm_(vit: Any, views: tuple[BlockView, ...], write: Write, q: Tensor) -> None:
    projection = vit.patch_embed.proj
    last_first = projection.weight.movedim(0, -1)
    last_first.copy_(write(last_first.double()))
    writers = [projection.bias, vit.pos_embed, vit.cls_token, vit.reg_token]
    for one in writers:
        if one is not None:
            one.copy_(write(one.double()))
    for view in views:
        block: Any = view.block
        for name in ("norm1", "norm2"):
            setattr(block, name, _bare(getattr(block, name)))
        for name in ("ls1", "ls2"):
            setattr(block, name, nn.Identity())
    name = "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"
    norm, head = getattr(vit, name), vit.head
    if type(head) is nn.Linear and head.bias is not None:
        setattr(vit, name, _bare(norm))
        _fold_last_(norm, head, q)
        return
    back = nn.Linear(vit.embed_dim, vit.embed_dim, dtype=norm.weight.dtype, device=norm.weight.device)
    back.weight.copy_(torch.eye(vit.embed_dim))
    back.bias.zero_()
    _fold_last_(norm, back, q)
    setattr(vit, name, nn.Sequential(_bare(norm), back.requires_grad_(norm.weight.requires_grad)))


def _fold_last_(norm: Any, head: nn.Linear, q: Tensor) -> None:
    """(x g + b) W = (x Q) (Q^T g W) + b W, for a stream x Q; weights are (out, in)."""
    w = head.weight.double()
    if getattr(norm, "bias", None) is not None:
        head.bias.add_(w @ norm.bias.double())
    gain = w.new_ones(w.shape[1]) if norm.weight is None else norm.weight.double()
    head.weight.copy_((w * gain) @ q.to(w.device))


def _bare(norm: Any) -> nn.RMSNorm:
    """The RMS norm that equals a LayerNorm without gain and bias on centred tokens."""
    bare = nn.RMSNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)
    return bare.train(norm.training)


def _of_llama(model: Any) -> Stream:
    views = tuple(block_views(model))
    return Stream(views, views[0].dim, False, lambda write, q: _turn_llama_(model, views, write, q))


def _turn_llama_(model: Any, views: tuple[BlockView, ...], write: Write, q: Tensor) -> None:
    rows, head, norm = model.get_input_embeddings(), model.get_output_embeddings(), model.model.norm
    if head.weight is rows.weight:
        head.weight = nn.Parameter(rows.weight.clone(), requires_grad=rows.weight.requires_grad)
        model.config.tie_word_embeddings = False
    rows.weight.copy_(write(rows.weight.double()))
    _fold_last_(norm, head, q)
    norms: list[Any] = [norm, *(own for view in views for own in (view.attn_norm, view.mlp_norm))]
    for one in norms:
        one.weight.fill_(1)
