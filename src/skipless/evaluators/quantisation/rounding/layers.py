"""Modules that quantise what they compute with: the library's own modules, given another class.

A class has no state of its own: parameters, buffers, hooks and keys stay. What it needs is in `quantisation_rule`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.linear import quantised_linear, rounded_weight
from skipless.evaluators.quantisation.rounding.protocol import Rule, straight_through

RULE = "quantisation_rule"


class QuantisedLinear(nn.Linear):
    """`nn.Linear` with rounded weights and inputs; made by `quantise_`."""

    unquantised = nn.Linear
    quantisation_rule: Rule

    def forward(self, input: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The map, in integers."""
        return quantised_linear(input, self.weight, self.bias, self.quantisation_rule)


class QuantisedConv2d(nn.Conv2d):
    """`nn.Conv2d`, a patch embedding, with rounded weights and inputs; an image has one scale."""

    unquantised = nn.Conv2d
    quantisation_rule: Rule

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d r s"]:
        """The convolution of what was rounded."""
        rule, x, weight = self.quantisation_rule, input, self.weight
        if rule.watch is not None:
            rule.watch(x.detach(), False)
        elif rule.how.activations is not None:
            rows = x.flatten(1)
            x = straight_through(x, rule.input_grid(rows.detach()).rounded(rows).view_as(x))
        return self._conv_forward(x, rounded_weight(weight.flatten(1), rule).view_as(weight), self.bias)


class QuantisedEmbedding(nn.Embedding):
    """`nn.Embedding` with rounded rows; it has no activations to round."""

    unquantised = nn.Embedding
    quantisation_rule: Rule

    def forward(self, input: Tensor) -> Tensor:
        """The rounded rows of ids."""
        weight = rounded_weight(self.weight, self.quantisation_rule)
        return functional.embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )


class QuantisedMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` of a sequence to itself, whose two linear maps are rounded, and never fused.

    Logits, softmax and the product with values are as they are in every other attention: not quantised.
    """

    unquantised = nn.MultiheadAttention
    quantisation_rule: Rule

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
    ) -> tuple[Tensor, Tensor | None]:
        """The library's forward, with masks as it takes them."""
        if not (query is key and key is value):
            raise InputError("quantised attention is of a sequence to itself: give one tensor as query, key and value")
        turn = not self.batch_first and query.ndim == 3
        x = query.transpose(0, 1) if turn else query
        q, k, v = self._projected(x if x.ndim == 3 else x[None])
        logits = q @ k.mT * self.head_dim**-0.5 + self._mask(q, k, attn_mask, key_padding_mask)
        weights = logits.softmax(-1)
        dropped = functional.dropout(weights, self.dropout, self.training)
        heads = (dropped @ v).transpose(1, 2).flatten(2)
        rule, out = self.quantisation_rule, self.out_proj
        y = quantised_linear(heads, out.weight, out.bias, rule, inner=True)
        y = y if query.ndim == 3 else y[0]
        if not need_weights:
            return (y.transpose(0, 1) if turn else y), None
        shown = weights.mean(1) if average_attn_weights else weights
        return (y.transpose(0, 1) if turn else y), (shown if query.ndim == 3 else shown[0])

    def _projected(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, ...]:
        fused = quantised_linear(x, self.in_proj_weight, self.in_proj_bias, self.quantisation_rule)
        return fused.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)

    def _mask(self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None) -> Tensor:
        """What is added to logits: -inf where a mask says so, or what it says."""
        total = q.new_zeros(())
        if attn_mask is not None:
            added = _as_added(attn_mask, q)
            total = total + (added.unflatten(0, (len(q), self.num_heads)) if added.ndim == 3 else added)
        if padding is not None:
            total = total + _as_added(padding, q).reshape(-1, 1, 1, k.shape[2])
        return total


def _as_added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)


def quantised_class(module: nn.Module) -> type[nn.Module] | None:
    """The class that quantises a module's computation; None where none does."""
    known: dict[type, type[nn.Module]] = {
        one.unquantised: one
        for one in (QuantisedLinear, QuantisedConv2d, QuantisedEmbedding, QuantisedMultiheadAttention)
    }
    kind = type(module)
    if kind.__module__ == "transformers.pytorch_utils" and kind.__name__ == "Conv1D":
        from skipless.evaluators.quantisation.rounding.hf_conv1d import QuantisedConv1D

        return QuantisedConv1D
    return known.get(kind)
