"""Golub-Kahan-Lanczos bidiagonalisation, and probabilistic bounds of the extreme singular values.

K V_k = U_k B_k with orthonormal U_k, V_k and an upper bidiagonal B_k. The extreme singular values of B_k approach those
of K from inside: the largest from below, the smallest *from above*. A small residual shows that some singular value of
K is near. It does not show that this one is the smallest, so it is no stopping test.

Bounds from outside come from the start vector. v_{k+1} is a known polynomial of K^T K applied to the random start
vector. The polynomial would amplify a singular value outside the range of B_k, unless the start vector hardly contained
its singular vector, and the probability of that is known. So `probabilistic_bounds` fails with a stated probability
over the seed (van Dorsselaer, Hochstenbach and van der Vorst, "Computing probabilistic bounds for
extreme eigenvalues of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 22, 2000).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.linalg import vector_norm

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.errors import InputError

# Vectors are stored in blocks that stay in cache between the two products of an orthogonalisation. At 75,648 x 480 this
# is 1.4 to 1.6 times faster than one matrix.
BLOCK_BYTES = 4 * 2**20
# One orthogonalisation leaves an error of eps |before| / |after|. It is repeated if more than a digit was lost.
REORTHOGONALISE_BELOW = 0.1


class OrthonormalBasis:
    """A growing set of orthonormal vectors."""

    def __init__(self, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.count = 0
        self._shape = max(8, BLOCK_BYTES // (length * dtype.itemsize)), length
        self._like = {"dtype": dtype, "device": device}
        self._blocks: list[Tensor] = []

    def append(self, vector: Float[Tensor, " n"]) -> None:
        """Add a vector, which must be orthogonal to the others and of length 1."""
        rows, _ = self._shape
        if self.count % rows == 0:
            self._blocks.append(torch.empty(self._shape, **self._like))
        self._blocks[-1][self.count % rows] = vector
        self.count += 1

    @property
    def last(self) -> Float[Tensor, " n"]:
        """The vector that was added last, as a view."""
        return self._blocks[-1][(self.count - 1) % self._shape[0]]

    def _filled(self) -> list[Tensor]:
        rows, _ = self._shape
        return [block[: self.count - i * rows] for i, block in enumerate(self._blocks)]

    def project_out_(self, vector: Float[Tensor, " n"]) -> float:
        """Orthogonalise a vector against the basis; returns the largest component that was removed."""
        taken = []
        for block in self._filled():
            components = block @ vector
            vector.addmv_(block.mT, components, alpha=-1)
            taken.append(components.abs().max())
        return torch.stack(taken).max().item() if taken else 0.0

    def combine(self, weights: Float64[Tensor, " k"]) -> Float[Tensor, " n"]:
        """The normalised linear combination with the given weights; weights beyond the last vector are ignored."""
        out = torch.zeros(self._shape[1], **self._like)
        for block, part in zip(self._filled(), weights.split(self._shape[0]), strict=False):
            size = min(len(block), len(part))
            out.addmv_(block[:size].mT, part[:size].to(out))
        return out.div_(vector_norm(out, dtype=torch.float64).clamp_min(torch.finfo(out.dtype).tiny))


class Bidiagonalization:
    """A Golub-Kahan-Lanczos run that can be continued.

    The start vector is drawn on the CPU from the seed, uniformly on the unit sphere of the shorter side.

    Attributes:
        alphas, betas: the diagonal and the superdiagonal of B_k; the last beta couples to v_{k+1}.
        noise: the largest entry of U^T K V that should be 0, which is the rounding error of an entry of B_k.
        complete: whether the Krylov space is invariant, so that every distinct singular value has been found.
        operator: the operator as given, or its transpose if that is taller.
    """

    def __init__(self, operator: LinearOperator, seed: int = 0) -> None:
        self.operator = operator.mT if operator.shape[0] < operator.shape[1] else operator
        rows, self.dim = self.operator.shape
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.noise = 0.0
        self.complete = False
        self._scale = 0.0
        self._eps = torch.finfo(operator.dtype).eps
        self.left, self.right = (OrthonormalBasis(size, operator.dtype, operator.device) for size in (rows, self.dim))
        start = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.right.append((start / start.norm()).to(operator.device, operator.dtype))

    @property
    def steps(self) -> int:
        """k, the number of steps taken so far."""
        return len(self.alphas)

    def extend(self, steps: int) -> None:
        """Continue until `steps` steps have been taken in total, or the run is complete.

        Raises:
            InputError: if a product is not finite, or the two products do not belong to one matrix.
        """
        while self.steps < steps and not self.complete:
            self._step()

    def _step(self) -> None:
        v = self.right.last
        p, size = checked_product(self.operator, self.operator.matvec, v)
        if self.betas:
            p.sub_(self.left.last, alpha=self.betas[-1])
        alpha = self._orthogonalise_(p, self.left, size)
        self.alphas.append(alpha)
        if alpha == 0:  # K V_k lies in the span of U_{k-1}: K is singular and the space is invariant
            return self._finish()
        self.left.append(p.div_(alpha))
        q, size = checked_product(self.operator, self.operator.rmatvec, self.left.last)
        beta = self._orthogonalise_(q.sub_(v, alpha=alpha), self.right, size)
        if beta == 0 or self.steps == self.dim:
            return self._finish()
        self.betas.append(beta)
        self.right.append(q.div_(beta))
        return None

    def _finish(self) -> None:
        self.betas.append(0.0)
        self.complete = True

    def _orthogonalise_(self, w: Tensor, basis: OrthonormalBasis, before: float) -> float:
        """Orthogonalise `w` and return the length of what is left; 0 if that is only rounding."""
        self._scale = max(self._scale, before)
        taken = basis.project_out_(w)
        if taken > self._eps**0.5 * self._scale:
            raise InputError(
                f"{self.operator.name}: matvec and rmatvec are not products with one matrix and its transpose "
                f"(they differ by {taken / self._scale:.1g} of its norm)"
            )
        self.noise = max(self.noise, taken)
        length = vector_norm(w, dtype=torch.float64).item()
        if length < REORTHOGONALISE_BELOW * before:
            basis.project_out_(w)
            length = vector_norm(w, dtype=torch.float64).item()
        if length > 4 * self._eps * self._scale:
            return length
        self.noise = max(self.noise, length)
        return 0.0

    def ritz_values(self) -> Float64[Tensor, " k"]:
        """The singular values of B_k, in descending order."""
        return torch.linalg.svdvals(self._bidiagonal())

    def quadrature(self) -> tuple[Float64[Tensor, " k"], Float64[Tensor, " k"]]:
        """The singular values of B_k, and their quadrature weights for the start vector."""
        _, theta, yh = torch.linalg.svd(self._bidiagonal())
        return theta, yh[:, 0].square()

    def _bidiagonal(self) -> Float64[Tensor, "k k"]:
        diagonal = torch.tensor(self.alphas, dtype=torch.float64)
        return diagonal.diag() + torch.tensor(self.betas[: self.steps - 1], dtype=torch.float64).diag(1)

    def triplets(self, indices: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        """Approximate left and right singular vectors of the operator, for the given singular values of B_k."""
        x, _, yh = torch.linalg.svd(self._bidiagonal())
        return [(self.left.combine(x[:, i]), self.right.combine(yh[i])) for i in indices]


def checked_product(
    operator: LinearOperator, apply: Callable[[Tensor], Tensor], vector: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " m"], float]:
    """One product as a new tensor, and its length.

    Raises:
        InputError: if it is not finite, or not of the operator's shape.
    """
    out = apply(vector)
    if out.ndim != 1 or len(out) not in operator.shape:
        raise InputError(f"{operator.name} is {operator.shape[0]} x {operator.shape[1]}, a product {tuple(out.shape)}")
    # The product may be a view of memory that the operator keeps, or of the vector itself (the identity).
    out = out.detach().clone()
    length = vector_norm(out, dtype=torch.float64).item()
    if not math.isfinite(length):
        raise InputError(f"{operator.name} has products that are not finite; look for NaN in the weights")
    return out, length


@dataclass(frozen=True)
class ExtremeBounds:
    """Bounds of the extreme singular values from a run, in exact arithmetic.

    Attributes:
        largest, smallest: the extreme singular values of B_k, which bound those of K from inside.
        upper: upper bound of sigma_max.
        lower: lower bound of sigma_min; 0 if nothing is known.
    """

    largest: float
    smallest: float
    upper: float
    lower: float


def probabilistic_bounds(run: Bidiagonalization, failure: float = 1e-6) -> ExtremeBounds:
    """Bounds from outside, each of which fails with at most the given probability over the seed.

    With p the monic polynomial whose roots are the squared singular values theta_i^2 of B_k, |p(K^T K) v_1| is the
    product of all alpha_j beta_j. A right singular vector w of sigma thus has |<w, v_1>| at most

        c(sigma) = prod alpha_j beta_j / prod |theta_i^2 - sigma^2|,

    which falls as sigma leaves the range of the theta_i; for v_1 uniform on the sphere of R^n, P(|<w, v_1>| <= c) is at
    most c sqrt(2 n / pi). The bounds are the sigma at which this probability equals `failure`.
    """
    theta = run.ritz_values()
    largest, smallest = theta[0].item(), theta[-1].item()
    if run.complete:
        return ExtremeBounds(largest, smallest, largest, smallest)
    allowed = math.log(failure) - 0.5 * math.log(2 * run.dim / math.pi)
    grown = sum(math.log(alpha) + math.log(beta) for alpha, beta in zip(run.alphas, run.betas, strict=True))

    def unlikely(share: float, end: float, sign: int) -> bool:
        """Whether a singular value at end * (1 + sign * share) or beyond is less likely than `failure`."""
        sigma = end * (1 + sign * share)
        # theta^2 - sigma^2 as two factors; the difference from the end itself is exact
        apart = torch.where(theta == end, end * share, (theta - sigma).abs()) * (theta + sigma)
        return grown - apart.log().sum().item() <= allowed

    return ExtremeBounds(
        largest,
        smallest,
        largest * (1 + _bisect_log(lambda share: unlikely(share, largest, 1), 1e6)),
        smallest * (1 - _bisect_log(lambda share: unlikely(share, smallest, -1), 1.0)),
    )


def _bisect_log(holds: Callable[[float], bool], most: float) -> float:
    """The smallest share in [1e-16, most] for which `holds`, by bisection to a hundredth; `most` if there is none."""
    low, high = math.log(1e-16), math.log(most)
    if holds(math.exp(low)):
        return math.exp(low)
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)
