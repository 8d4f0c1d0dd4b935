"""`nn.MultiheadAttention` with another core in place of the softmax; made by `replace_attention_`."""

# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

import torch
from torch import Tensor, nn
from torch.nn import functional

from skipless.errors import InputError
from skipless.nn import AttentionCore


class CoreMultiheadAttention(nn.MultiheadAttention):
    """PyTorch's attention with another core. Its masks mean what they mean there: True hides."""

    core: AttentionCore
    softmax = nn.MultiheadAttention

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """False, which keeps encoder layers from their fused path: it computes a softmax, whatever stands here."""
        return False

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, value: bool) -> None:
        pass

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """The forward of `nn.MultiheadAttention`, for batches and without weights.

        Raises:
            InputError: for `need_weights=True`, unbatched or nested tokens, and `is_causal` without a mask.
        """
        if need_weights:
            raise InputError("another core than softmax gives no weights: call with need_weights=False")
        if query.is_nested or query.dim() != 3:
            raise InputError("another core than softmax takes tokens (b, n, d), neither nested nor unbatched")
        if is_causal and attn_mask is None:
            raise InputError("is_causal=True is a hint beside attn_mask, as in PyTorch: give attn_mask too")
        if not self.batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        assert self.in_proj_weight is not None
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(part, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part, weight, bias in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)
        )
        mask = _combined(key_padding_mask, attn_mask, self.num_heads, q)
        y = self.core(q, k, v, mask=mask, scale=self.head_dim**-0.5, dropout=self.dropout if self.training else 0.0)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (y if self.batch_first else y.transpose(0, 1)), None


def _combined(padding: Tensor | None, mask: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """PyTorch's two masks as one of the core's: booleans that are True where a key is seen, or numbers to add."""
    parts = []
    if padding is not None:
        parts.append(padding[:, None, None])
    if mask is not None:
        parts.append(mask.unflatten(0, (-1, heads)) if mask.dim() == 3 else mask)
    if not parts:
        return None
    if all(part.dtype == torch.bool for part in parts):
        hidden = parts[0] if len(parts) == 1 else parts[0] | parts[1]
        return ~hidden
    numbers = [
        torch.zeros_like(part, dtype=like.dtype).masked_fill(part, -torch.inf) if part.dtype == torch.bool else part
        for part in parts
    ]
    return numbers[0] if len(numbers) == 1 else numbers[0] + numbers[1]


CORES: dict[type, type] = {nn.MultiheadAttention: CoreMultiheadAttention}
