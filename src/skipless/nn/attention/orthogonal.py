"""Orthogonal self-attention (Zhang and Martens, arXiv 2602.05996): the exponential of a skew matrix of low rank."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.nn.attention.core import AttentionCore, Call, visible


class OrthogonalAttention(AttentionCore):
    """A = exp(S) with S = alpha / sqrt(c) (Q K^T - K Q^T), which is skew: A is orthogonal (arXiv 2602.05996).

    S = U W^T has rank 2c, so exp(S) = I + U phi(W^T U) W^T with phi(M) = (e^M - 1) / M, which costs O(n c^2 + c^3) and
    makes no n x n matrix. phi is read off the exponential of [[M, I], [0, 0]]. Unlike a QR of [Q, K] it has a gradient
    whatever the rank, and with fewer than 2c tokens. With 4c tokens or fewer exp(S) itself is the smaller matrix, and
    is taken. Exponentials are computed in float64, the rest in float32.

    It is bidirectional. Padded keys take no part: their rows and columns are those of the identity. Each head has one
    alpha, which is trainable.

    Args:
        alpha: what it starts as; 0 gives A = I exactly. The source's initial value is not public, hence 1 here.
        heads, index, depth: see `AttentionCore`.

    Raises:
        InputError: when called with causal order, with masks other than by key, biases, dropout, or a cache.

    Example:
        >>> q, k = torch.randn(2, 1, 1, 9, 2, dtype=torch.double)
        >>> a = OrthogonalAttention().matrix(q, k)[0, 0]
        >>> torch.allclose(a @ a.mT, torch.eye(9, dtype=torch.double))
        True
    """

    causal_ok = False
    mask_ok = False
    drops = False

    def __init__(self, alpha: float = 1.0, **place: int) -> None:
        super().__init__(**place)
        self.start = float(alpha)
        self.alpha = nn.Parameter(torch.full((self.heads,), self.start))

    def options(self) -> dict[str, Any]:
        """What alpha starts as."""
        return {"alpha": self.start}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """alpha is what it started as."""
        self.alpha.fill_(self.start)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """The values, turned."""
        if q.shape[-2] != k.shape[-2]:
            raise InputError("OrthogonalAttention turns whole sequences: call it without a cache (use_cache=False)")
        with torch.autocast(q.device.type, enabled=False):
            q, k, wide = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (q, k, v))
            if (mask := how.mask) is not None:
                if mask.dtype != torch.bool and torch.where(visible(mask), mask, 0.0).any():
                    raise InputError("OrthogonalAttention takes no bias on its logits, only masks by key")
                seen = (
                    visible(mask).reshape(*mask.shape[:-2], mask.shape[-1], 1)
                    if mask.dim() > 1
                    else visible(mask)[:, None]
                )
                q, k = q * seen, k * seen
            factor = (self.alpha.to(q) * how.scale)[:, None, None]
            left, right = torch.cat([q, -k], -1) * factor, torch.cat([k, q], -1)
            if q.shape[-2] <= 4 * q.shape[-1]:  # S is then no larger than what phi is read off
                a = _exponential((left @ right.mT).double())
                turned = a.to(wide.dtype) @ wide
            else:
                turned = wide + left @ (_phi(right.mT @ left) @ (right.mT @ wide))
        return turned.to(v.dtype)


def _phi(m: Float[Tensor, "*b r r"]) -> Float[Tensor, "*b r r"]:
    """(e^M - 1) / M, in float64."""
    rank = m.shape[-1]
    wide = m.double()
    unit = torch.eye(rank, dtype=wide.dtype, device=m.device).expand_as(wide)
    upper = torch.cat([wide, unit], -1)
    return _exponential(torch.cat([upper, torch.zeros_like(upper)], -2))[..., :rank, rank:].to(m.dtype)


_DEGREE_12 = 0.2996  # up to this norm, what a Taylor polynomial of degree 12 leaves out is below float64's rounding


def _exponential(x: Float[Tensor, "*b r r"]) -> Float[Tensor, "*b r r"]:
    """e^X of float64 by scaling and squaring, one scale for the batch.

    Its derivative takes matrices of the same size, where that of `torch.linalg.matrix_exp` is an exponential of twice
    the size. The latter stands in where the norm cannot be read or is not finite: compiled, or in `torch.func.vmap`.
    """
    if torch.compiler.is_compiling() or x.is_meta:
        return torch.linalg.matrix_exp(x)
    try:
        norm = x.detach().abs().sum(-2).amax().item() if x.numel() else 0.0
    except RuntimeError:  # vmap
        return torch.linalg.matrix_exp(x)
    if not math.isfinite(norm):
        return torch.linalg.matrix_exp(x)
    squarings = max(0, math.ceil(math.log2(max(norm, 1e-300) / _DEGREE_12)))
    x = x / 2**squarings
    square = x @ x
    powers = (torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), x, square, square @ x)
    cubic = [sum(power / math.factorial(i + j) for j, power in enumerate(powers[:3])) for i in (0, 3, 6, 9)]
    a = cubic[3] + powers[3] / math.factorial(12)
    for part in cubic[2::-1]:
        a = part + powers[3] @ a
    for _ in range(squarings):
        a = a @ a
    return a
