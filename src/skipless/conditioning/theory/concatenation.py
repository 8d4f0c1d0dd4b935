"""A.4.4: bounds on the condition number of a concatenation by those of its blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.display import Record
from skipless.display.values import few_words
from skipless.errors import InputError

Orientation = Literal["tall", "wide", "mixed"]


@dataclass(frozen=True, repr=False)
class ConcatenationBound(Record):
    """Both sides of Eqs. 37 and 6 for M = [A_1 ... A_k], from dense float64 factorisations.

    Attributes:
        orientation: `"tall"` if M has at least as many rows as columns, `"wide"` if every block has at least as many
            columns as rows, `"mixed"` otherwise.
        coherence: rho of Eq. 32; with more than two blocks, the norm of the matrix of the pairs' rho.
        balance: tau of Eq. 33; None if a block is 0.
        s_max: the largest singular value of any block.
        s_min: the smallest of any block.
        kappa_max: the condition number of the worst block; None if that block is singular in float64.
        kappa: the condition number of M; None if M is singular in float64.
        bound: the proven upper bound of kappa(M). For tall M it is sqrt((s_max^2 + rho) / (s_min^2 - rho)), the first
            bound of Eq. 37; for wide blocks the smaller of it and sqrt(sum s_max^2 / sum s_min^2). None if nothing is
            proven.
        printed: the last expression of Eq. 37, tau sqrt((1 + rho / s_max^2) / (1 - rho / s_min^2)) kappa_max; None if
            rho >= s_min^2, where it is void.
    """

    orientation: Orientation
    coherence: float
    balance: float | None
    s_max: float
    s_min: float
    kappa_max: float | None
    kappa: float | None
    bound: float | None
    printed: float | None

    def _summary(self) -> str:
        kappa, worst, bound = (few_words(value) for value in (self.kappa, self.kappa_max, self.bound))
        return (
            f"{self.orientation}, kappa {kappa}, worst block {worst}, proven at most {bound}, rho {self.coherence:.3g}"
        )

    @property
    def worst_block_holds(self) -> bool | None:
        """Whether Eq. 6 holds here, kappa(M) <= kappa_max; None if both are singular in float64."""
        if self.kappa is None:
            return None if self.kappa_max is None else False
        return self.kappa_max is None or self.kappa <= self.kappa_max


@torch.no_grad()
def concatenation_bound(blocks: Sequence[Float[Tensor, "r _"]]) -> ConcatenationBound:
    """rho, tau and both sides of Eqs. 6 and 37 for concatenated blocks, such as the J_l of a model (Eqs. 32 to 37).

    Findings from checking the proof:

    - Eqs. 35 and 36 are right: 2 rho |x| |y| / (|x|^2 + |y|^2) is at most rho, at |x| = |y|. They hold for any number
      of blocks with rho the norm of the matrix of pairwise |A_i^T A_j|, whose diagonal is 0.
    - The second relation of Eq. 37 is an equality, and the third holds: s_max / s_min <= tau kappa_max.
    - "rho -> 0" is not enough. rho has the units of s^2, and the bound is void unless rho < s_min^2. Relative to the
      blocks' norms, coherence must be below about 1 / kappa^2, so the bound is weakest where kappa is large.
    - sigma_min in Eq. 36 is min |A x| / |x|, which is 0 for a block with more columns than rows. So the proof covers
      only tall blocks with together at most as many columns as rows, p <= m n d.
    - For wide blocks, p_l >= m n d, as in a ViT-Small for up to 7 images, **Eq. 6 needs no assumption at all**:
      M M^T = sum A_i A_i^T, so kappa(M)^2 <= sum sigma_max(A_i)^2 / sum sigma_min(A_i)^2 <= max kappa(A_i)^2, with
      sigma_min the least of the m n d singular values, whatever rho and tau are.
    - In between, with some p_l < m n d < p, nothing is proven.

    Args:
        blocks: at least two matrices with the same number of rows. A wide one is first reduced to its
            triangular factor, so that it may have hundreds of thousands of columns.

    Raises:
        InputError: if there are fewer than two, their rows differ, or one is empty or not finite.

    Example:
        >>> found = concatenation_bound([torch.eye(4)[:, :2], 2 * torch.eye(4)[:, 2:]])
        >>> found.orientation, found.coherence, found.balance, found.kappa, found.kappa_max, found.bound
        ('tall', 0.0, 2.0, 2.0, 1.0, 2.0)
    """
    _check(blocks)
    rows, columns = len(blocks[0]), [block.shape[1] for block in blocks]
    factors = [triangular_factor(block.double()) for block in blocks]
    spectra = [torch.linalg.svdvals(factor) for factor in factors]
    tops, bottoms = [s[0].item() for s in spectra], [s[-1].item() for s in spectra]
    pairs = [[_coherence(a, b) if a is not b else 0.0 for b in factors] for a in factors]
    rho = torch.linalg.matrix_norm(torch.tensor(pairs, dtype=torch.double), 2).item()
    s_max, s_min = max(tops), min(bottoms)
    kappas = [_kappa(s, size) for s, size in zip(spectra, columns, strict=True)]
    kappa_max = None if None in kappas else max(kappa for kappa in kappas if kappa is not None)
    tall, wide = sum(columns) <= rows, min(columns) >= rows
    eq37 = ((s_max**2 + rho) / (s_min**2 - rho)) ** 0.5 if rho < s_min**2 else None
    proved = [eq37] if tall or wide else []
    if wide and kappa_max is not None:
        proved.append((sum(top**2 for top in tops) / sum(bottom**2 for bottom in bottoms)) ** 0.5)
    tau = max(tops) / min(tops) if min(tops) > 0 else None
    whole = torch.linalg.svdvals(torch.cat(factors, dim=1))[: min(rows, sum(columns))]
    return ConcatenationBound(
        orientation="tall" if tall else "wide" if wide else "mixed",
        coherence=rho,
        balance=tau,
        s_max=s_max,
        s_min=s_min,
        kappa_max=kappa_max,
        kappa=_kappa(whole, max(rows, sum(columns))),
        bound=min((bound for bound in proved if bound is not None), default=None),
        printed=_printed(rho, tau, s_max, s_min, kappa_max),
    )


def _check(blocks: Sequence[Tensor]) -> None:
    shapes = [tuple(block.shape) for block in blocks]
    if len(blocks) < 2 or len({len(block) for block in blocks}) > 1 or not all(block.numel() for block in blocks):
        raise InputError(f"blocks of shapes {shapes}: give two or more with the same number of rows, none empty")
    if not all(block.isfinite().all() for block in blocks):
        raise InputError("a block has values that are not finite: it has no singular values")


def triangular_factor(block: Float[Tensor, "r p"]) -> Float[Tensor, "r q"]:
    """L of A = L Q^T, which has the Gram matrix A A^T of the block, but at most as many columns as rows."""
    rows, columns = block.shape
    return block if columns <= rows else torch.linalg.qr(block.mT, mode="r").R.mT


def _coherence(a: Float[Tensor, "r p"], b: Float[Tensor, "r q"]) -> float:
    return torch.linalg.matrix_norm(a.mT @ b, 2).item()


def _kappa(s: Float[Tensor, " s"], size: int) -> float | None:
    """The condition number; None if the smallest singular value is at the level of rounding."""
    floor = max(size, len(s)) * torch.finfo(s.dtype).eps
    return (s[0] / s[-1]).item() if s[-1] > floor * s[0] else None


def _printed(rho: float, tau: float | None, s_max: float, s_min: float, kappa_max: float | None) -> float | None:
    if tau is None or kappa_max is None or rho >= s_min**2:
        return None
    return tau * ((1 + rho / s_max**2) / (1 - rho / s_min**2)) ** 0.5 * kappa_max
