"""What all cores of attention share: how they are called, and which keys a query sees."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from skipless.errors import InputError

_HIDDEN = -1e30  # libraries write the lowest number of a dtype where they mean -inf


class Call(NamedTuple):
    """How a core is called, once masks and order are made one.

    Attributes:
        own: each query's own value, `(*b, h, n, e)`.
        mask: as `AttentionCore.forward` has it, with -inf for what it hides; None if it hides nothing.
        causal: True only where there are as many queries as keys, and no mask.
        scale: factor of the logits.
        dropout: of attention weights.
    """

    own: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    dropout: float


class AttentionCore(nn.Module):
    """From queries, keys and values of every head to what each head gives; put into a model by `replace_attention_`.

    A core is called as PyTorch's `scaled_dot_product_attention` is. The last query stands at the last key: with a cache
    of keys there are fewer queries than keys.

    Args:
        heads: number of query heads that have gains of their own; 1 is one gain for all.
        index: place of its block, from 0.
        depth: number of blocks.
    """

    causal_ok = True  # whether a query may be kept from seeing later keys
    mask_ok = True  # whether any mask may be given, or one by key alone
    drops = True  # whether there are weights that dropout can strike

    def __init__(self, *, heads: int = 1, index: int = 0, depth: int = 1) -> None:
        super().__init__()
        if heads < 1 or not 0 <= index < depth:
            raise InputError(f"heads={heads}, index={index}, depth={depth}: give heads >= 1 and 0 <= index < depth")
        self.heads, self.index, self.depth = heads, index, depth

    def options(self) -> dict[str, Any]:
        """What the core was made with, besides heads, index and depth; as JSON has it."""
        return {}

    def extra_repr(self) -> str:
        """What `print(model)` shows: its options, so that the text makes a core like it."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options().items())

    def for_block(self, *, heads: int, index: int, depth: int) -> "AttentionCore":
        """A new core with the same options, for one block of a model."""
        return type(self)(**self.options(), heads=heads, index=index, depth=depth)

    def reset_parameters(self) -> None:
        """Set every gain to its first value; a core without gains has none to set."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """What a core computes: queries `(*b, h, n, c)`, keys `(*b, h, m, c)`, values `(*b, h, m, e)`."""
        raise NotImplementedError

    def forward(
        self,
        q: Float[Tensor, "*b h n c"],
        k: Float[Tensor, "*b h m c"],
        v: Float[Tensor, "*b h m e"],
        mask: Tensor | None = None,
        causal: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
        own: Float[Tensor, "*b h n e"] | None = None,
    ) -> Float[Tensor, "*b h n e"]:
        """Attend.

        Args:
            q: queries.
            k: keys, of as many heads.
            v: values.
            mask: True where a query sees a key, or a number that is added to its scaled logit, -inf where it does not;
                of any shape that broadcasts to `(b, h, n, m)`.
            causal: let no query see a later key, besides what `mask` says.
            scale: factor of the logits, 1 / sqrt(c) by default.
            dropout: of attention weights; give 0 in evaluation.
            own: each query's own value, where that is not its place from the end (static caches).

        Raises:
            InputError: for a mask, causal order or dropout that the core cannot have.
        """
        n, m = q.shape[-2], k.shape[-2]
        if causal and not self.causal_ok:
            raise InputError(f"{type(self).__name__} is bidirectional: its matrix has no causal form; use another core")
        if mask is not None and not self.mask_ok and mask.dim() > 1 and mask.shape[-2] != 1:
            if not torch.equal(mask, mask[..., :1, :].expand_as(mask)):
                raise InputError(f"{type(self).__name__} takes masks by key, (b, 1, 1, n), which all queries share")
            mask = mask[..., :1, :]
        if dropout and not self.drops:
            raise InputError(f"{type(self).__name__} has no weights to drop: build the model with attention dropout 0")
        if mask is not None:
            mask = as_mask(mask, q)
            mask = mask.expand(*mask.shape[:-1], m) if mask.dim() else mask  # a mask by query is of every key
        if causal and (mask is not None or n != m):
            order = torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
            mask = order if mask is None else narrowed(mask, order)
            causal = False
        own = v[..., m - n :, :] if own is None else own
        return self.attend(q, k, v, Call(own, mask, causal, q.shape[-1] ** -0.5 if scale is None else scale, dropout))

    def matrix(
        self, q: Float[Tensor, "*b h n c"], k: Float[Tensor, "*b h n c"], **how: Any
    ) -> Float[Tensor, "*b h n n"]:
        """The matrix A that the values are multiplied by, for measurements: n x n. Arguments as of a call.

        Example:
            >>> from skipless.nn import ValueSkipInit
            >>> q = torch.zeros(1, 2, 3, 4)
            >>> ValueSkipInit().matrix(q, q)[0, 0].tolist()
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        """
        unit = torch.eye(k.shape[-2], dtype=q.dtype, device=q.device).expand(*k.shape[:-1], k.shape[-2])
        return self(q, k, unit, **how)


def as_mask(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as booleans if it only hides, else as numbers of the queries' dtype with -inf where a key is hidden."""
    if mask.dtype == torch.bool:
        return mask
    hidden = mask <= max(_HIDDEN, torch.finfo(mask.dtype).min / 2)
    return mask.masked_fill(hidden, -torch.inf).to(like.dtype)


def narrowed(mask: Tensor, order: Tensor) -> Tensor:
    """A mask that also hides what `order` hides."""
    return mask & order if mask.dtype == torch.bool else torch.where(order, mask, -torch.inf)


def visible(mask: Tensor) -> Tensor:
    """True where a query sees a key."""
    return mask if mask.dtype == torch.bool else mask > -torch.inf


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
    """PyTorch's fused attention; a query that sees nothing gets 0."""
    mask = how.mask[None] if how.mask is not None and how.mask.dim() < 2 else how.mask
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=how.dropout, is_causal=how.causal, scale=how.scale
    )


def per_head(gain: Tensor, like: Tensor) -> Tensor:
    """A gain of every head, to be multiplied with `(b, h, n, c)`."""
    return gain.to(like.dtype)[:, None, None]
