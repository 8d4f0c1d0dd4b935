"""Proposition 1 with explicit constants: bounds of an attention matrix's kappa by margin and range of its logits."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.display import Record
from skipless.errors import InputError


@dataclass(frozen=True)
class SoftmaxBound(Record):
    """The bound that Proposition 1 gives for kappa of an n x n attention matrix.

    Attributes:
        regime: `"dominant"` if `kappa` is an upper bound, `"diffuse"` if it is a lower bound.
        n: number of tokens.
        epsilon: the bound on |A - I|_2 (dominant) or on |A - 11^T / n|_F (diffuse).
        kappa: the bound. None if A is exactly uniform, so that kappa is infinite, or if `epsilon` reaches 1 with a
            dominant diagonal, so that nothing is proven.
    """

    regime: Literal["dominant", "diffuse"]
    n: int
    epsilon: float
    kappa: float | None


def row_margin(logits: Float[Tensor, "n n"]) -> float:
    """gamma of Proposition 1: the least M_ii - max_(j != i) M_ij. Negative if a diagonal logit is not the largest.

    Example:
        >>> row_margin(torch.tensor([[5.0, 1.0], [0.0, 3.0]]))
        3.0
    """
    _check_logits(logits)
    others = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool, device=logits.device), -math.inf)
    return (logits.diagonal() - others.amax(1)).amin().item()


def row_range(logits: Float[Tensor, "n n"]) -> float:
    """Delta of Proposition 1: the largest difference between two logits of one row.

    Example:
        >>> row_range(torch.tensor([[5.0, 1.0], [0.0, 3.0]]))
        4.0
    """
    _check_logits(logits)
    return (logits.amax(1) - logits.amin(1)).amax().item()


def dominance_bound(n: int, margin: float, temperature: float = 1.0) -> SoftmaxBound:
    """Proposition 1, diagonal dominance: kappa(S_tau(M)) <= (1 + eps) / (1 - eps), with an explicit eps.

    The paper leaves eps open. With q = exp(-gamma / tau), A_ij <= q A_ii off the diagonal. So with R = I - A, whose
    rows sum to 0,

        1 - A_ii <= (n-1) q / (1 + (n-1) q),    A_ij <= q / (1 + q)
        |R|_inf = 2 max (1 - A_ii)                       <= 2 (n-1) q / (1 + (n-1) q)
        |R|_1   = max_j (1 - A_jj + sum_(i != j) A_ij)   <= (n-1) q [1 / (1 + (n-1) q) + 1 / (1 + q)]
        |R|_2  <= sqrt(|R|_1 |R|_inf)  =: eps            <= 2 (n-1) q

    and the singular values of A = I - R lie in [1 - eps, 1 + eps]. So eps -> 0 as gamma / tau -> infinity. But
    eps depends on n: the margin needed for a given kappa grows like tau ln n.

    Args:
        n: number of tokens.
        margin: gamma, see `row_margin`.
        temperature: tau.

    Raises:
        InputError: if n or the temperature is not positive, or the margin not finite.

    Example:
        >>> dominance_bound(197, margin=10.0).kappa < 1.04
        True
        >>> print(dominance_bound(197, margin=5.0).kappa)
        None
    """
    _check_bound(n, margin, temperature, "margin")
    q = math.exp(min(-margin / temperature, 700.0))  # a negative margin proves nothing, but must not overflow
    mass = (n - 1) * q / (1 + (n - 1) * q)
    epsilon = math.sqrt(2 * mass * (mass + (n - 1) * q / (1 + q)))
    return SoftmaxBound("dominant", n, epsilon, (1 + epsilon) / (1 - epsilon) if epsilon < 1 else None)


def diffuse_bound(n: int, spread: float, temperature: float = 1.0) -> SoftmaxBound:
    """Proposition 1, diffuse rows: kappa(S_tau(M)) >= sqrt(n - 1) / sinh(Delta / 2 tau), about 2 sqrt(n) tau / Delta.

    Let t = Delta / tau and D = A - 11^T / n. The n entries of a row have mean 1 / n and a largest one at most e^t times
    the least. A variable with mean mu in [m, e^t m] has variance at most (e^t m - mu)(mu - m) (Bhatia and Davis), which
    is largest at m = mu (1 + e^-t) / 2, and there mu^2 (e^t - 1)(1 - e^-t) / 4 = mu^2 sinh^2(t / 2). So

        |D|_F^2 <= n * n * sinh^2(t / 2) / n^2 = sinh^2(t / 2) =: eps^2

    11^T / n has rank 1, hence sum_(k >= 2) sigma_k(A)^2 <= |D|_F^2 (Eckart and Young), and the least of these n - 1
    values is at most eps / sqrt(n - 1). Rows sum to 1, so A 1 = 1 and sigma_max >= 1. This is the paper's tau / Delta
    with the factor 2 sqrt(n - 1), which proves its "worsens as n grows".

    Args:
        n: number of tokens.
        spread: Delta, see `row_range`.
        temperature: tau.

    Raises:
        InputError: if n or the temperature is not positive, or the spread negative or not finite.

    Example:
        >>> round(diffuse_bound(197, spread=0.1).kappa)
        280
        >>> print(diffuse_bound(197, spread=0.0).kappa)
        None
    """
    _check_bound(n, spread, temperature, "spread")
    if spread < 0:
        raise InputError(f"spread={spread}: a largest minus a least logit is not negative")
    epsilon = math.sinh(min(spread / temperature / 2, 700.0))  # larger values overflow sinh, and the bound is 1 anyway
    if epsilon == 0:
        return SoftmaxBound("diffuse", n, 0.0, 1.0 if n == 1 else None)
    return SoftmaxBound("diffuse", n, epsilon, max(math.sqrt(n - 1) / epsilon, 1.0))


def _check_logits(logits: Tensor) -> None:
    if logits.numel() == 0 or logits.shape[0] != logits.shape[1] or not logits.isfinite().all():
        raise InputError(f"logits of shape {tuple(logits.shape)}: give an n x n matrix of finite values")


def _check_bound(n: int, value: float, temperature: float, what: str) -> None:
    if n < 1:
        raise InputError(f"n={n}: an attention matrix has at least one token")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(f"temperature={temperature}: tau is positive and finite")
    if not math.isfinite(value):
        raise InputError(f"{what}={value} is not finite")
