"""The largest eigenpair of a symmetric operator by the Lanczos method with full reorthogonalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CHECK_EVERY = 6
BREAKDOWN = 1.0  # if the new vector is shorter than this many roundings, the Krylov space is complete


@dataclass(frozen=True, eq=False)
class RitzPair:
    """The largest Ritz pair, and the current approximation of the next one.

    Attributes:
        vector: Ritz vector of unit length, orthogonal to the locked vectors.
        value: Ritz value; up to rounding, it is never above the largest eigenvalue.
        gap: distance to the next Ritz value; 0 if there is none. It is an estimate: only a second run, orthogonal to
            this vector, confirms it.
        residual: norm of M u - value u, from the recurrence.
        following: the next Ritz vector; None if there is none.
        steps: number of products with the operator.
        converged: whether the residual meets the tolerance, or the Krylov space is complete up to rounding.
    """

    vector: Float[Tensor, " n"]
    value: float
    gap: float
    residual: float
    following: Float[Tensor, " n"] | None
    steps: int
    converged: bool


def largest_eigenpair(
    product: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]],
    start: Float[Tensor, " n"],
    locked: Float[Tensor, "locked n"],
    *,
    scale: float,
    floor: float,
    relative: float = 0.0,
    max_steps: int,
) -> RitzPair:
    """Find the largest eigenpair of a symmetric operator on the space orthogonal to locked eigenvectors.

    Args:
        product: maps v to M v.
        start: start vector; a random vector has a component along every eigenvector.
        locked: orthonormal eigenvectors to stay orthogonal to.
        scale: rough size of the operator's largest eigenvalue; values at its rounding level count as zero.
        floor: the run stops when the residual is below this value.
        relative: the run also stops when the residual is below this fraction of the gap to the next Ritz value, which
            bounds the error of the vector.
        max_steps: maximum number of steps.
    """
    locked_count, max_steps = len(locked), min(max_steps, len(start) - len(locked))
    # Basis vectors are rows, so that both products with the basis read contiguous memory.
    basis = start.new_empty(locked_count + max_steps + 1, len(start))
    basis[:locked_count] = locked
    vector = start
    for _ in range(2):
        vector = torch.addmv(vector, basis[:locked_count].T, basis[:locked_count] @ vector, alpha=-1)
    torch.div(vector, torch.linalg.vector_norm(vector), out=basis[locked_count])
    coefficients: list[Tensor] = []  # diagonal and off-diagonal entries of the tridiagonal matrix, in turn
    step = 0
    while True:
        step += 1
        span = basis[: locked_count + step]
        vector = product(basis[locked_count + step - 1])
        inner = span @ vector
        vector = torch.addmv(vector, span.T, inner, alpha=-1)
        vector = torch.addmv(vector, span.T, span @ vector, alpha=-1)  # one pass loses digits if little is left
        length = torch.linalg.vector_norm(vector)
        torch.div(vector, length, out=basis[locked_count + step])
        coefficients += (inner[-1], length)
        if step % CHECK_EVERY == 0 or step == max_steps:
            numbers = torch.stack(coefficients).double().cpu().numpy()
            solution = _solve_tridiagonal(numbers[::2], numbers[1::2], scale * torch.finfo(start.dtype).eps)
            converged = solution.complete or solution.residual <= max(floor, relative * solution.gap)
            if converged or step == max_steps:
                break
    weights = torch.from_numpy(solution.vectors[:, -2:].T.copy()).to(basis)
    *following, vector = weights @ basis[locked_count : locked_count + len(solution.vectors)]
    following = following[0] if following else None
    return RitzPair(vector, solution.value, solution.gap, solution.residual, following, step, converged)


class _TridiagonalSolution(NamedTuple):
    value: float
    gap: float
    residual: float
    vectors: np.ndarray  # as columns, in ascending order of the eigenvalues
    complete: bool


def _solve_tridiagonal(diagonal: np.ndarray, off_diagonal: np.ndarray, rounding: float) -> _TridiagonalSolution:
    """Solve the tridiagonal eigenproblem, cut off where the Krylov space is complete: later entries are only noise."""
    ends = np.flatnonzero(~(off_diagonal > BREAKDOWN * rounding))  # `~` also catches NaN after a division by 0
    steps = int(ends[0]) + 1 if len(ends) else len(off_diagonal)
    matrix = np.zeros((steps, steps))
    matrix.flat[:: steps + 1] = diagonal[:steps]
    matrix.flat[steps :: steps + 1] = off_diagonal[: steps - 1]
    values, vectors = np.linalg.eigh(matrix)  # reads the lower triangle
    gap = float(values[-1] - values[-2]) if steps > 1 else 0.0
    return _TridiagonalSolution(
        float(values[-1]), gap, float(off_diagonal[steps - 1] * abs(vectors[-1, -1])), vectors, len(ends) > 0
    )
