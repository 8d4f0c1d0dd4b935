"""Shaped attention (arXiv 2306.17759) and V-SkipInit (He et al. 2023), without an attention matrix."""

import torch
from torch import Tensor, nn

from skipless.nn.attention.core import AttentionCore, Call, per_head, softmax_attention


class ShapedAttention(AttentionCore):
    """A = alpha I + beta softmax(x) - gamma C, with C what the softmax is at logits of 0 (Noci et al., 2306.17759).

    C is 1/n where every key is seen, and 1/t in row t of causal attention. It is computed as
    `alpha v + beta SDPA(q, k, v) - gamma mean(v)`, the mean cumulative in causal order. The three gains of each head
    are trainable and start at 1. With W_Q = 0, as the paper starts, the matrix is then the identity exactly;
    `replace_attention_` leaves W_Q as it is, so set it to 0 (`view.query.write_`) to start so.

    Args:
        heads, index, depth: see `AttentionCore`.

    Example:
        >>> q = torch.zeros(1, 1, 3, 4)
        >>> ShapedAttention().matrix(q, q, causal=True)[0, 0].round(decimals=6).abs().tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    def __init__(self, **place: int) -> None:
        super().__init__(**place)
        self.alpha, self.beta, self.gamma = (nn.Parameter(torch.ones(self.heads)) for _ in range(3))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """All gains are 1."""
        for gain in (self.alpha, self.beta, self.gamma):
            gain.fill_(1.0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """Each query's own value, plus softmax attention, less the mean."""
        mixed = softmax_attention(q, k, v, how)
        even = _even(q, k, v, how).to(mixed.dtype)
        alpha, beta, gamma = (per_head(gain, mixed) for gain in (self.alpha, self.beta, self.gamma))
        return alpha * how.own + beta * mixed - gamma * even


def _even(q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
    """What attention gives at logits of 0: C v."""
    wide = v.to(torch.promote_types(v.dtype, torch.float32))
    if how.causal:
        return wide.cumsum(-2) / torch.arange(1, v.shape[-2] + 1, device=v.device)[:, None]
    if how.mask is None:
        return wide.mean(-2, keepdim=True)
    rows = q[..., :1, :] if how.mask.dim() < 2 or how.mask.shape[-2] == 1 else q
    return softmax_attention(torch.zeros_like(rows), k, v, how._replace(dropout=0.0))


class ValueSkipInit(AttentionCore):
    """A = alpha I + beta softmax(x) (V-SkipInit, He et al. 2023): the identity at first, (alpha, beta) = (1, 0).

    It is computed as `alpha v + beta SDPA(q, k, v)`. The two gains of each head are trainable.

    Args:
        heads, index, depth: see `AttentionCore`.

    Example:
        >>> v = torch.randn(1, 2, 3, 4)
        >>> torch.equal(ValueSkipInit()(v, v, v), v)
        True
    """

    def __init__(self, **place: int) -> None:
        super().__init__(**place)
        self.alpha, self.beta = nn.Parameter(torch.ones(self.heads)), nn.Parameter(torch.zeros(self.heads))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The identity."""
        self.alpha.fill_(1.0)
        self.beta.fill_(0.0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """Each query's own value, plus softmax attention."""
        mixed = softmax_attention(q, k, v, how)
        return per_head(self.alpha, mixed) * how.own + per_head(self.beta, mixed) * mixed
