"""Section 5 and A.4 as functions: K = B + E, Propositions 1 and 2, Eqs. 14 to 20, and the bound of A.4.4."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.attention import AttentionPrimal
from skipless.conditioning.operators.autodiff import token_operator
from skipless.conditioning.operators.jacobian import attention_primal
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.conditioning.spectra.estimates import Estimate
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.conditioning.theory.concatenation import ConcatenationBound, concatenation_bound
from skipless.conditioning.theory.moments import GapMoments, LogitMoments, gap_moments, logit_moments
from skipless.conditioning.theory.softmax_bounds import (
    SoftmaxBound,
    diffuse_bound,
    dominance_bound,
    row_margin,
    row_range,
)
from skipless.display import Record, Table
from skipless.models.blocks import BlockView
from skipless.precision import full_precision

__all__ = [
    "ConcatenationBound",
    "GapMoments",
    "LogitMoments",
    "PerturbationRatio",
    "SoftmaxBound",
    "attention_terms",
    "concatenation_bound",
    "diffuse_bound",
    "dominance_bound",
    "gap_moments",
    "logit_moments",
    "perturbation_ratio",
    "row_margin",
    "row_range",
]

# |E|_2 needs only tens of Lanczos steps. sigma_min(E), which is not used, would need far more.
NORM_ITERATIONS = 200


@dataclass(frozen=True, repr=False)
class PerturbationRatio(Record):
    """Measurement of Proposition 2's premise that E is a small perturbation of B.

    Attributes:
        name: name of the attention.
        shape: shape of K.
        perturbation: |E|_2.
        dominant_max, dominant_min: sigma_max(B) and sigma_min(B).
        ratio: |E|_2 / sigma_min(B); its `upper` is None if sigma_min(B) may be 0.
        small: whether the ratio is below 1, as the proposition needs; None if the bounds do not decide it.
        kappa_bound: the upper bound (sigma_max(B) + |E|) / (sigma_min(B) - |E|) of kappa(K); None unless E is known to
            be small.
        seed: seed of the iterative methods.
    """

    name: str
    shape: tuple[int, int]
    perturbation: Estimate
    dominant_max: Estimate
    dominant_min: Estimate
    ratio: Estimate
    small: bool | None
    kappa_bound: float | None
    seed: int

    def _summary(self) -> str:
        small = {True: "small", False: "not small", None: "not told"}[self.small]
        return f"{self.name}, |E| / sigma_min(B) {self.ratio}, {small}; |E| {self.perturbation}, seed {self.seed}"

    def tables(self) -> tuple[Table, ...]:
        """The norms that are compared, with their bounds."""
        numbers = {
            "|E|": self.perturbation,
            "sigma_max(B)": self.dominant_max,
            "sigma_min(B)": self.dominant_min,
            "|E| / sigma_min(B)": self.ratio,
        }
        rows = [
            (name, str(one), f"{one.lower:.4g}", "" if one.upper is None else f"{one.upper:.4g}")
            for name, one in numbers.items()
        ]
        bound = "nothing is proven" if self.kappa_bound is None else f"kappa(K) is at most {self.kappa_bound:.4g}"
        caption = f"{self.name}, {self.shape[0]} x {self.shape[1]}, seed {self.seed}; {bound}"
        return (Table(("number", "value", "at least", "at most"), rows, caption, align="lrrr"),)


@torch.inference_mode(False)
@full_precision()
def attention_terms(block: nn.Module | BlockView, x: Float[Tensor, "*b n d"]) -> tuple[LinearOperator, LinearOperator]:
    """The two terms of Eqs. 10 and 13 for any number of heads: K_l = B + E, dominant and perturbation.

    With the paper's vec (columns stacked) and heads h, LayerScale in W_O and the logit scale in A':

        B = sum_h (W_V,h W_O,h)^T (x) A_h,    E = sum_h (X W_V,h W_O,h (x) I_n)^T A'_h

    A bias on the values drops out of E, because the rows of A sum to 1 and those of A' to 0. Here tokens are flattened
    row by row, so the factors of the Kronecker products are swapped. With several heads, B is not a Kronecker product,
    and kappa(B) is not kappa(A) kappa(W_V W_O).

    Args:
        block: one block of a model, or its `BlockView`.
        x: the attention's input, `(n, d)`; with `(b, n, d)` both operators are block diagonal.

    Returns:
        B and E.

    Raises:
        InputError: as `attn_jacobian`, and where Eq. 10 does not describe the attention (qk-norm, masks, gates).

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, seed=0)
        >>> dominant, perturbation = attention_terms(model.blocks[0], torch.randn(5, 24))
        >>> dominant.shape, dominant.name
        ((120, 120), 'B of attn')
    """
    return _terms(*attention_primal(block, x))


@torch.inference_mode(False)
@full_precision()
def perturbation_ratio(block: nn.Module | BlockView, x: Float[Tensor, "*b n d"], *, seed: int = 0) -> PerturbationRatio:
    """Compare the two terms of Proposition 2 at tokens `x`: |E|_2 and sigma_min(B).

    The proof in A.4.3 assumes that |E| << |B| suffices, but |E| must be small compared with sigma_min(B). Eq. 21 also
    drops the factor |d vec(M) / d vec(X)|, which grows with |X|. So the premise is measured here. If it fails, nothing
    follows: K may be well conditioned all the same.

    With one head, sigma(B) are the products of the singular values of A and of W_V W_O. With several heads, and for E,
    singular values come from `spectrum`.

    Args:
        block, x: as in `attention_terms`.
        seed: seed of the iterative methods.

    Raises:
        InputError: as `attention_terms`.

    Example:
        >>> from skipless.init import SkiplessInit
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(0.1, 4.0, 1.0), depth=1, embed_dim=24,
        ...                      num_heads=1, seed=0)
        >>> x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
        >>> perturbation_ratio(model.blocks[0], x).small
        True
    """
    primal, tokens, name = attention_primal(block, x)
    dominant, perturbation = _terms(primal, tokens, name)
    norm = spectrum(perturbation, max_iterations=NORM_ITERATIONS, inverse_rows=0, seed=seed).sigma_max
    if primal.heads == 1:
        high, low = _kronecker_extremes(primal)
    else:
        found = spectrum(dominant, seed=seed)
        high, low = found.sigma_max, found.sigma_min
    ratio = _quotient(norm, low)
    small = True if ratio.upper is not None and ratio.upper < 1 else False if ratio.lower >= 1 else None
    bound = None
    if small and high.upper is not None and norm.upper is not None:
        bound = (high.upper + norm.upper) / (low.lower - norm.upper)
    return PerturbationRatio(name, dominant.shape, norm, high, low, ratio, small, bound, seed)


def _terms(primal: AttentionPrimal, x: Tensor, name: str) -> tuple[LinearOperator, LinearOperator]:
    def term(letter: str, **which: bool) -> LinearOperator:
        jvp, vjp, dense = (partial(f, **which) for f in (primal.jvp, primal.vjp, primal.dense))
        operator = token_operator(jvp, vjp, x, f"{letter} of {name}")
        return replace(operator, dense=lambda: torch.block_diag(*dense()))

    return term("B", perturbation=False), term("E", dominant=False)


def _kronecker_extremes(primal: AttentionPrimal) -> tuple[Estimate, Estimate]:
    """sigma_max(B) and sigma_min(B) with one head, where B is a Kronecker product: products of its factors' values."""
    maps = matrix_spectrum(primal.a, name="A")
    (_, _, w_v), w_o = primal.head_weights(), primal.w_out
    value = matrix_spectrum(w_v.double() @ w_o.double(), name="W_V W_O")[0]
    high = max((each.sigma_max for each in maps), key=lambda end: end.value)
    low = min((each.sigma_min for each in maps), key=lambda end: end.value)
    return _product(high, value.sigma_max), _product(low, value.sigma_min)


def _product(a: Estimate, b: Estimate) -> Estimate:
    upper = None if a.upper is None or b.upper is None else a.upper * b.upper
    return Estimate(a.value * b.value, a.lower * b.lower, upper, a.converged and b.converged, a.method)


def _quotient(a: Estimate, b: Estimate) -> Estimate:
    """a / b; its value is a lower bound if b may be 0."""
    lower = a.lower / b.upper if b.upper else 0.0
    upper = a.upper / b.lower if a.upper is not None and b.lower > 0 else None
    value = a.value / b.value if upper is not None and b.value > 0 else lower
    return Estimate(value, lower, upper, a.converged and b.converged, b.method, a.iterations + b.iterations)
