"""The normalised cut of a graph of tokens (Shi and Malik 2000), with error bounds.

The published code solves (D - A) v = lambda D v densely. Here u = D^1/2 v is computed, which is the second largest
eigenvector of M = D^-1/2 A D^-1/2. The largest, D^1/2 1, is known. The Lanczos method finds u with products by the 0/1
adjacency matrix, in float32 where that is faster. The residual in float64 and the gap to the next eigenvalue bound the
error of every entry (Davis and Kahan). If the bound does not decide a token's side or the seed, u is computed to more
digits. What these do not decide is a tie. For few tokens, LAPACK's solver for two eigenpairs of M is faster, if SciPy
is installed.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skipless.evaluators.discovery.eigenpair import RitzPair, largest_eigenpair
from skipless.evaluators.discovery.regions import middle_token

DENSE_TOKENS = 32  # up to this many tokens the dense eigensolver is fast enough
LAPACK_TOKENS = 256  # up to this many tokens LAPACK is faster than the Python calls of the Lanczos method
FLOAT32_TOKENS = 400  # from this many tokens on, float32 products are faster on a CPU
MAX_STEPS = 120  # of the Lanczos method; beyond that a factorisation is cheaper
MIN_FLOAT32_GAP = 2e-3  # at smaller eigenvalue gaps, float32 leaves too few correct digits in the vector
THIRD_RESIDUAL = 1e-4  # residual of the third eigenvector; its eigenvalue is then accurate to about 1e-6
MIN_SHIFT_MARGIN = 1e-7  # smallest distance of the shift sigma above the second eigenvalue
# Eigenvalues closer than this count as repeated: rounding, not the graph, would choose between their vectors.
REPEATED_TOLERANCE = 1e-9
TIE_TOLERANCE = 1e-9  # entries closer than this, relative to max |v|, count as equal


@dataclass(frozen=True, eq=False)
class NormalisedCut:
    """A partition of a graph into two sides.

    Attributes:
        vector: the second smallest eigenvector v of (D - A) v = lambda D v in float64; v^T D v = 1, positive at the
            seed.
        foreground: v > mean(v).
        seed: the token of largest |v|.
        tied: number of tokens that could equally be the seed.
        proven: whether error bounds decide every side and the seed, where tied tokens with equal edges count as
            decided.
        error: bound of the error of the vector in the norm of D.
        eigenvalues: the three smallest lambda (fewer with fewer tokens); the third is accurate to about 1e-6.
        method: `lapack`, `lanczos`, `shift-invert`, `dense` or `no cut`.
    """

    vector: Float[Tensor, " n"]
    foreground: Bool[Tensor, " n"]
    seed: int
    tied: int
    proven: bool
    error: float
    eigenvalues: tuple[float, ...]
    method: str


def normalised_cut(edges: Float[Tensor, "n n"], eps: float) -> NormalisedCut:
    """Cut the graph with weight 1 where `edges` is 1 and eps where it is 0; `tokencut` states the tie rules.

    Args:
        edges: symmetric matrix of zeros and ones; its dtype, float32 or float64, is the precision of the first attempt.
        eps: weight of the other pairs, positive.
    """
    n = len(edges)
    count = edges.sum(1).double()
    degree = eps * n + (1 - eps) * count
    graph = _AffinityGraph(edges, eps, degree.rsqrt(), degree.sqrt() / degree.sum().sqrt())
    if _is_uniform(edges, count):
        return _no_cut(graph)
    if n <= DENSE_TOKENS:
        return _bipartition(graph, _solve_dense(graph))
    second = _solve_lapack(graph) if n <= LAPACK_TOKENS and not edges.is_cuda else None
    second = second or _solve_lanczos(graph)
    cut = _bipartition(graph, second) if second.error < 1 else None
    if cut is None or not (cut.proven or second.method != "lanczos"):
        graph = replace(graph, edges=edges.double())
        cut = _bipartition(graph, _solve_lanczos(graph, second))
    return cut


@dataclass(frozen=True, eq=False)
class _AffinityGraph:
    """The affinity matrix A = eps 1 1^T + (1 - eps) edges, with its precomputed degrees."""

    edges: Float[Tensor, "n n"]
    eps: float
    inverse_root: Float[Tensor, " n"]  # D^-1/2 1, float64
    first: Float[Tensor, " n"]  # D^1/2 1 / |D^1/2 1|, float64

    def product(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Multiply by M = D^-1/2 (eps 1 1^T + (1 - eps) edges) D^-1/2, in the vector's precision."""
        root = self.inverse_root.to(vector.dtype)
        scaled = root * vector
        if self.edges.dtype == vector.dtype:
            near = self.edges @ scaled
        else:  # converted in pieces that stay in cache
            near = torch.cat([part.to(vector.dtype) @ scaled for part in self.edges.split(64)])
        return near.mul_(1 - self.eps).add_(scaled.sum() * self.eps).mul_(root)

    def dense(self) -> Float[Tensor, "n n"]:
        """M as a dense matrix in float64."""
        affinity = (self.edges.double() * (1 - self.eps)).add_(self.eps)
        return affinity.mul_(self.inverse_root[:, None]).mul_(self.inverse_root)


@dataclass(frozen=True, eq=False)
class _SecondEigenvector:
    """The second eigenvector of M, of unit length, with a bound of its error in the 2-norm."""

    vector: Float[Tensor, " n"]
    error: float
    eigenvalues: tuple[float, ...]
    method: str
    third: tuple[float, float] | None = None  # third eigenvalue of M, and an upper bound of it


def _is_uniform(edges: Float[Tensor, "n n"], count: Float[Tensor, " n"]) -> bool:
    """Whether all pairs of tokens have the same weight, and all self-loops; M is then a multiple of I plus rank one."""
    n = len(edges)
    if n < 3:
        return n < 2 or bool((edges == edges[0, 0]).all())
    low, high = (count.min(), count.max())
    if low != high or float(low) not in (0, 1, n - 1, n):  # decides most graphs cheaply
        return False
    own = edges.diagonal().double()
    others = count - own
    return bool((own == own[0]).all() and ((others == 0).all() or (others == n - 1).all()))


def _no_cut(graph: _AffinityGraph) -> NormalisedCut:
    """The result for a uniform graph, in which all eigenvectors but the first have the same lambda."""
    n = len(graph.first)
    rest = float((graph.dense().diagonal().sum() - 1) / max(n - 1, 1))  # trace minus the first eigenvalue
    whole = torch.ones_like(graph.first, dtype=torch.bool)
    lambdas = (0.0, 1 - rest, 1 - rest)[:n]
    return NormalisedCut(torch.zeros_like(graph.first), whole, 0, n, True, 0.0, lambdas, "no cut")


def _bipartition(graph: _AffinityGraph, second: _SecondEigenvector) -> NormalisedCut:
    """Sides and seed from the eigenvector, and whether its error bound decides them."""
    # On the CPU, because these are few numbers, and several are read one by one.
    root, unit = (part.cpu().numpy() for part in (graph.inverse_root, second.vector))
    vector = root * unit
    size = np.abs(vector)
    # |v_i - v_i'| <= d_i^-1/2 |u - u'|, and the mean's error is at most |D^-1/2 1| |u - u'| / n.
    error = second.error * root
    top = int(size.argmax())
    candidates = np.flatnonzero(size + error >= size[top] - error[top])
    # Tokens with equal edges have equal entries: no number of digits would break such a tie.
    interchangeable = len(candidates) == 1 or _have_equal_rows(graph.edges, candidates)
    tied = candidates if interchangeable else np.flatnonzero(size >= size[top] * (1 - TIE_TOLERANCE))
    seed = middle_token(tied.tolist())
    vector = vector * np.sign(vector[seed])
    above = vector - vector.mean()
    clear = bool((np.abs(above) > error + np.linalg.norm(error) / len(error)).all())
    device = graph.edges.device
    return NormalisedCut(
        vector=torch.from_numpy(vector).to(device),
        foreground=torch.from_numpy(above > TIE_TOLERANCE * size[top]).to(device),
        seed=seed,
        tied=len(tied),
        proven=clear and interchangeable,
        error=second.error,
        eigenvalues=second.eigenvalues,
        method=second.method,
    )


def _have_equal_rows(edges: Float[Tensor, "n n"], tokens: np.ndarray) -> bool:
    rows = edges[torch.from_numpy(tokens).to(edges.device)]
    return bool((rows == rows[0]).all())


def _solve_lapack(graph: _AffinityGraph) -> _SecondEigenvector | None:
    """Solve densely for two eigenpairs, or for all if the eigenvalue is repeated. None without SciPy."""
    try:
        from scipy.linalg import get_lapack_funcs
    except ImportError:
        return None
    n = len(graph.first)
    m = graph.dense().addr_(graph.first, graph.first, alpha=-3).numpy().T  # column-major, as LAPACK needs it
    (syevr,) = get_lapack_funcs(["syevr"], [m])
    with _torch_thread_limit():
        values, vectors, *_, failed = syevr(m, range="I", il=n - 1, iu=n, overwrite_a=1)
    gap = float(values[1] - values[0])
    if failed or gap < 10 * REPEATED_TOLERANCE:
        return _solve_dense(graph)
    error = n * torch.finfo(torch.float64).eps / gap
    vector = torch.from_numpy(vectors[:, 1].copy())
    return _SecondEigenvector(vector, error, (0.0, 1 - float(values[1]), 1 - float(values[0])), "lapack")


def _torch_thread_limit() -> AbstractContextManager[Any]:
    """Limit SciPy's BLAS to torch's threads. By default it takes every core, and parallel runs block one another."""
    blas = _blas_controller()
    return nullcontext() if blas is None else blas.limit(limits=torch.get_num_threads())


@cache
def _blas_controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def _solve_lanczos(graph: _AffinityGraph, previous: _SecondEigenvector | None = None) -> _SecondEigenvector:
    """The second eigenvector by the Lanczos method, started from `previous` if given, or else by shift-invert."""
    n, dtype, device = len(graph.first), graph.edges.dtype, graph.first.device
    single = dtype == torch.float32
    generator = torch.Generator().manual_seed(0)  # on the CPU, so that every device starts from the same vector
    random = torch.randn(2, n, generator=generator, dtype=torch.float64).to(device, dtype)
    product = graph.dense().mv if n < FLOAT32_TOKENS and not single else graph.product
    start, relative = (random[0], 1e-6) if previous is None else (previous.vector, 1e-10)
    floor = 2e-7 if single else 1e-13  # smallest residual that rounding allows
    first = graph.first.to(dtype)[None]
    ritz = largest_eigenpair(product, start, first, scale=1, floor=floor, relative=relative, max_steps=MAX_STEPS)
    if not ritz.converged:
        return _solve_shift_invert(graph, ritz)
    if single and ritz.gap < MIN_FLOAT32_GAP:
        return _SecondEigenvector(ritz.vector.double(), math.inf, (), "lanczos")
    return _bound_error(
        graph, product, ritz, random[1], "lanczos", third=previous.third if previous is not None else None
    )


def _bound_error(
    graph: _AffinityGraph,
    product: Callable[[Tensor], Tensor],
    ritz: RitzPair,
    random: Float[Tensor, " n"],
    method: str,
    *,
    third: tuple[float, float] | None = None,
    to_mu: Callable[[float], float] = float,
    scale: float = 1.0,
) -> _SecondEigenvector:
    """Bound the vector's error by its residual in float64 and the gap, which a second run orthogonal to it finds.

    The start vector of the second run is partly random, so that the run also finds a repeated eigenvalue.
    """
    vector = ritz.vector.double()
    vector = vector - (graph.first @ vector) * graph.first
    vector = vector / torch.linalg.vector_norm(vector)
    image = graph.product(vector)
    mu = float(vector @ image)
    residual = float(torch.linalg.vector_norm(image - mu * vector))
    if third is None:
        locked = torch.stack([graph.first, vector]).to(random.dtype)
        start = random / torch.linalg.vector_norm(random)
        start = start if ritz.following is None else start + ritz.following
        third_pair = largest_eigenpair(
            product, start, locked, scale=scale, floor=THIRD_RESIDUAL * scale, max_steps=MAX_STEPS
        )
        gap_estimate = ritz.value - third_pair.value
        if third_pair.residual > gap_estimate / 8:
            third_pair = largest_eigenpair(
                product, third_pair.vector, locked, scale=scale, floor=gap_estimate / 16, max_steps=MAX_STEPS
            )
        third = to_mu(third_pair.value), to_mu(third_pair.value + third_pair.residual)
    gap = mu - third[1]
    if gap < 10 * max(residual, REPEATED_TOLERANCE):
        return _solve_shift_invert(graph, ritz) if method == "lanczos" else _solve_dense(graph)
    return _SecondEigenvector(vector, math.sqrt(2) * residual / gap, (0.0, 1 - mu, 1 - third[0]), method, third)


def _solve_shift_invert(graph: _AffinityGraph, ritz: RitzPair) -> _SecondEigenvector:
    """Shift-invert: iterate with (sigma - M)^-1 for a sigma just above the eigenvalue, to separate close eigenvalues.

    If the Cholesky factorisation exists, no eigenvalue except the first is above sigma.
    """
    n = len(graph.first)
    minus = -graph.dense()
    minus.addr_(graph.first, graph.first, alpha=3)  # moves the first eigenvalue from 1 to -2
    margin = max(2 * ritz.residual, MIN_SHIFT_MARGIN)
    factor, failed, sigma = minus, True, ritz.value
    while failed:
        sigma = ritz.value + margin
        factor, info = torch.linalg.cholesky_ex(minus + sigma * torch.eye(n, dtype=minus.dtype, device=minus.device))
        failed, margin = bool(info), 10 * margin

    def inverse(vector: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(factor, vector[:, None], upper=False)
        return torch.linalg.solve_triangular(factor.mT, half, upper=True)[:, 0]

    generator = torch.Generator().manual_seed(1)
    random = torch.randn(2, n, generator=generator, dtype=torch.float64).to(graph.first.device)
    start = ritz.vector.double() + random[0] / torch.linalg.vector_norm(random[0])
    scale = 1 / (sigma - ritz.value)
    ritz = largest_eigenpair(
        inverse, start, graph.first[None], scale=scale, floor=1e-13 * scale, relative=1e-10, max_steps=MAX_STEPS
    )
    return _bound_error(
        graph, inverse, ritz, random[1], "shift-invert", to_mu=lambda value: sigma - 1 / value, scale=scale
    )


def _solve_dense(graph: _AffinityGraph) -> _SecondEigenvector:
    """Solve densely. For a repeated eigenvalue, project the first token with a component onto the eigenspace."""
    n = len(graph.first)
    values, vectors = torch.linalg.eigh(graph.dense().addr_(graph.first, graph.first, alpha=-3))
    values, vectors = values.flip(0)[: n - 1], vectors.flip(1)
    repeated = int((values >= values[0] - REPEATED_TOLERANCE).sum())
    space = vectors[:, :repeated]
    vector = space[:, 0]
    if repeated > 1:
        shares = space.square().sum(1)
        token = int((shares > REPEATED_TOLERANCE).nonzero()[0, 0])
        vector = space @ space[token] / shares[token].sqrt()
    gap = float(values[0] - values[repeated]) if repeated < n - 1 else 1.0
    error = n * torch.finfo(values.dtype).eps / gap
    return _SecondEigenvector(vector, error, (0.0, *(1 - values[:2]).tolist()), "dense")
