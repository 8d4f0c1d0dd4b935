"""E-SPA and U-SPA (He et al. 2023): attention that starts as a given matrix, by a bias on its logits."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.errors import InputError
from skipless.nn.attention.core import AttentionCore, Call, softmax_attention

# A_l of symmetric roots is positive but for rounding (-1e-16); a logarithm is taken of it
_FLOOR = 1e-30


class _SignalPreserving(AttentionCore):
    """D softmax(x + B) with log A = log D + B, A = R_l R_(l-1)^-1 and R_l a root of Sigma_l. Two kernels share it."""

    bias: Tensor
    row_sum: Tensor

    def __init__(self, tokens: int, *, causal: bool = False, **place: int) -> None:
        super().__init__(**place)
        if tokens < 1:
            raise InputError(f"tokens={tokens}: give the number of tokens of the model's sequences")
        self.tokens, self.causal = tokens, causal
        self.causal_ok = causal
        before, now = (self.kernel(step) for step in (self.index, self.index + 1))
        a = _from_cholesky(now, before) if causal else _root(now) @ _root(before, -0.5)
        a = a.clamp_min(_FLOOR)
        a = a.tril() if causal else a
        total = a.sum(-1, keepdim=True)
        # In the state dict, because models that are loaded are made on the meta device, where numbers are lost.
        self.register_buffer("bias", (a / total).log())
        self.register_buffer("row_sum", total)

    def kernel(self, step: int) -> Float64[Tensor, "n n"]:
        """Sigma_l, the covariance of tokens after block l; the identity at 0."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """PyTorch's attention with the bias, times the row sums."""
        n, m = q.shape[-2], k.shape[-2]
        if m > self.tokens or (not self.causal and m != self.tokens):
            raise InputError(f"{type(self).__name__} was made for {self.tokens} tokens and got {m}; give tokens={m}")
        bias = self.bias[m - n : m, :m].to(q.dtype)
        if (mask := how.mask) is not None:
            bias = torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else bias + mask
        mixed = softmax_attention(q, k, v, how._replace(mask=bias, causal=False))
        return self.row_sum[m - n : m].to(mixed.dtype) * mixed


def _root(kernel: Float64[Tensor, "n n"], power: float = 0.5) -> Float64[Tensor, "n n"]:
    values, vectors = torch.linalg.eigh(kernel)
    return (vectors * values**power) @ vectors.mT


def _from_cholesky(now: Float64[Tensor, "n n"], before: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    roots = torch.linalg.cholesky(now), torch.linalg.cholesky(before)
    return torch.linalg.solve_triangular(roots[1], roots[0], upper=False, left=False)


class ExponentialSPA(_SignalPreserving):
    """E-SPA: without queries, tokens keep the covariance exp(-gamma_l |i - j|) (He et al. 2023).

    The matrix of block l is A_l = R_l R_(l-1)^-1, with R_l the symmetric root of that covariance, or Cholesky's where
    the core is causal. It enters as a bias, `D SDPA(q, k, v, bias)`, which needs one n x n matrix a block for all heads
    and images: B, and the row sums D stay fixed. gamma_l = -ln(1 - a^(2l/L)) / 2 with a^2 = 1 - exp(-2 gamma_L).
    With W_Q = 0 attention is A_l exactly; `replace_attention_` leaves W_Q as it is. A masked key has weight 0, and the
    weights of the others grow by the softmax.

    Args:
        tokens: n. A bidirectional core takes sequences of just this length, a causal one any that is not longer.
        gamma: of the last block; the source's 0.005.
        causal: for causal models.
        heads, index, depth: see `AttentionCore`.

    Raises:
        InputError: for a gamma that is not above 0.

    Example:
        >>> core = ExponentialSPA(4, index=1, depth=2, causal=True)
        >>> q = torch.zeros(1, 1, 4, 2)
        >>> core.matrix(q, q)[0, 0].triu(1).abs().max().item()
        0.0
    """

    def __init__(self, tokens: int, gamma: float = 0.005, *, causal: bool = False, **place: int) -> None:
        if not (math.isfinite(gamma) and gamma > 0):
            raise InputError(f"gamma={gamma}: give a number above 0")
        self._gamma = gamma
        super().__init__(tokens, causal=causal, **place)

    def options(self) -> dict[str, Any]:
        """Tokens, gamma and order."""
        return {"tokens": self.tokens, "gamma": self._gamma, "causal": self.causal}

    def kernel(self, step: int) -> Float64[Tensor, "n n"]:
        """exp(-gamma_l |i - j|)."""
        if step == 0:
            return torch.eye(self.tokens, dtype=torch.double, device="cpu")
        squared = -math.expm1(-2 * self._gamma)
        gamma = -math.log1p(-(squared ** (step / self.depth))) / 2
        place = torch.arange(self.tokens, dtype=torch.double, device="cpu")
        return (-gamma * (place[:, None] - place).abs()).exp()


class UniformSPA(_SignalPreserving):
    """U-SPA: without queries, all tokens keep one cosine rho_l with each other (He et al. 2023).

    As `ExponentialSPA`, with the covariance (1 - rho_l) I + rho_l 1 1^T. How rho_l rises is not public as a formula, so
    it is given.

    Args:
        tokens: n.
        rho: of each block, rising, at least 0 and below 1.
        causal: for causal models.
        heads, index, depth: see `AttentionCore`.

    Raises:
        InputError: for a rho out of order or range, or of another number of blocks.

    Example:
        >>> core = UniformSPA(3, rho=(0.5,))
        >>> q = torch.zeros(1, 1, 3, 2)
        >>> [round(x, 4) for x in core.matrix(q, q)[0, 0, 0].tolist()]
        [0.9428, 0.2357, 0.2357]
    """

    def __init__(self, tokens: int, rho: Sequence[float], *, causal: bool = False, **place: int) -> None:
        rho = tuple(float(one) for one in rho)
        if not rho or list(rho) != sorted(rho) or rho[0] < 0 or rho[-1] >= 1:
            raise InputError(f"rho={rho}: give a number for each block, rising, at least 0 and below 1")
        if place.get("depth", len(rho)) != len(rho):
            raise InputError(f"rho has {len(rho)} numbers for {place['depth']} blocks: give one for each")
        self.rho = (0.0, *rho)
        super().__init__(tokens, causal=causal, **{"depth": len(rho)} | place)

    def options(self) -> dict[str, Any]:
        """Tokens, cosines and order."""
        return {"tokens": self.tokens, "rho": list(self.rho[1:]), "causal": self.causal}

    def kernel(self, step: int) -> Float64[Tensor, "n n"]:
        """(1 - rho_l) I + rho_l 1 1^T."""
        rho = self.rho[step]
        unit = torch.eye(self.tokens, dtype=torch.double, device="cpu")
        return (1 - rho) * unit + rho
