"""timm's attentions with another core in place of the softmax; made by `replace_attention_`, never constructed."""

# pyright: reportPrivateImportUsage=false, reportIncompatibleMethodOverride=false
# timm.layers does not declare its re-exports.

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models import beit
from timm.models.eva import EvaAttention
from torch import Tensor
from torch.nn import functional

from skipless.nn import AttentionCore


class CoreAttention(Attention):
    """timm's `Attention` with another core."""

    core: AttentionCore
    softmax = Attention

    def forward(
        self, x: Float[Tensor, "b n d"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """The forward of `Attention`, in which the core stands for the softmax."""
        q, k, v = _heads(self, self.qkv(x))
        return _finish(self, x, _attend(self, self.q_norm(q), self.k_norm(k), v, attn_mask, is_causal))


class CoreAttentionRope(AttentionRope):
    """timm's `AttentionRope` with another core."""

    core: AttentionCore
    softmax = AttentionRope

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "b n d"]:
        """The forward of `AttentionRope`, in which the core stands for the softmax."""
        q, k, v = _split(self, x) if self.qkv is None else _heads(self, self.qkv(x))
        q, k = _turned(self, self.q_norm(q), self.k_norm(k), v, rope)
        return _finish(self, x, _attend(self, q, k, v, attn_mask, is_causal))


class CoreEvaAttention(EvaAttention):
    """timm's `EvaAttention` with another core."""

    core: AttentionCore
    softmax = EvaAttention

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "b n d"]:
        """The forward of `EvaAttention`, in which the core stands for the softmax."""
        q, k, v = _split(self, x) if self.qkv is None else _heads(self, _biased(self, x))
        q, k = _turned(self, self.q_norm(q), self.k_norm(k), v, rope)
        return _finish(self, x, _attend(self, q, k, v, attn_mask, is_causal))


class CoreBeitAttention(beit.Attention):
    """The attention of timm's BEiT with another core."""

    core: AttentionCore
    softmax = beit.Attention

    def forward(self, x: Float[Tensor, "b n d"], shared_rel_pos_bias: Tensor | None = None) -> Float[Tensor, "b n d"]:
        """The forward of BEiT's attention; its biases by position are added to the core's logits."""
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = self._get_rel_pos_bias()
            bias = own if bias is None else own + bias
        q, k, v = _heads(self, _biased(self, x))
        return _finish(self, x, _attend(self, q, k, v, bias, False))


CORES: dict[type, type] = {
    one.softmax: one for one in (CoreAttention, CoreAttentionRope, CoreEvaAttention, CoreBeitAttention)
}


def _heads(attn: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _split(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of projections of their own; keys and values may be of fewer heads."""
    q = attn.q_proj(x).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    k, v = (part(x).unflatten(-1, (-1, q.shape[-1])).transpose(1, 2) for part in (attn.k_proj, attn.v_proj))
    return q, k, v


def _biased(attn: Any, x: Tensor) -> Tensor:
    if attn.q_bias is None:
        return attn.qkv(x)
    bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    return attn.qkv(x) + bias if attn.qkv_bias_separate else functional.linear(x, attn.qkv.weight, bias)


def _turned(attn: Any, q: Tensor, k: Tensor, v: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor]:
    """Queries and keys of patches, turned by their positions."""
    if rope is None:
        return q, k
    prefix, half = attn.num_prefix_tokens, getattr(attn, "rotate_half", False)
    q, k = (
        torch.cat([part[:, :, :prefix], apply_rot_embed_cat(part[:, :, prefix:], rope, half=half)], dim=2).type_as(v)
        for part in (q, k)
    )
    return q, k


def _attend(attn: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    dropout = attn.attn_drop.p if attn.training else 0.0
    return attn.core(q, k, v, mask=mask, causal=causal, scale=attn.scale, dropout=dropout)


def _finish(attn: Any, x: Tensor, y: Tensor) -> Tensor:
    """What stands after the heads in all of them: norm, gate and output, as far as there are any."""
    y = y.transpose(1, 2).flatten(2)
    norm, gate = getattr(attn, "norm", None), getattr(attn, "gate", None)
    y = y if norm is None else norm(y)
    y = y if gate is None else y * gate(x).sigmoid()
    return attn.proj_drop(attn.proj(y))
