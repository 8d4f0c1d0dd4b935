"""The two ends of a spectrum from iterations: Lanczos on the operator, and Lanczos on its inverse."""

from dataclasses import dataclass, replace
from statistics import mean, stdev

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.conditioning.operators.linear_operator import DENSE_BYTES, LinearOperator
from skipless.conditioning.spectra.dense import BACKWARD, interval, inverse, resolution
from skipless.conditioning.spectra.estimates import Estimate
from skipless.conditioning.spectra.golub_kahan import Bidiagonalization, bracket, product
from skipless.errors import InputError

# Steps between two looks at the bounds, as a share of those taken.
STRIDE = 0.05
# Products that a value is averaged over at most, and the standard errors that its bounds are wide.
SAMPLES = 64
SPREAD = 5.0


@dataclass(frozen=True)
class Goal:
    """What iterations are asked for: the arguments of `spectrum` of these names."""

    tolerance: float
    failure: float
    seed: int
    max_iterations: int
    memory: float


def ends_by_lanczos(
    operator: LinearOperator, goal: Goal, ends: tuple[str, ...] = ("max", "min")
) -> tuple[Estimate, Estimate, Float64[Tensor, " k"] | None]:
    """sigma_max and sigma_min, and all singular values if the run has come to the end of the space.

    `ends` are those that the run waits for; the other is given as the run found it.
    """
    run = _run(operator, goal, ends)
    known, k, theta = bracket(run, goal.failure), run.operator, run.ritz()
    (u_max, v_max), (u_min, v_min) = run.triplets((0, -1))
    everything = theta if run.steps == run.dim else None
    high, error, residual = _refine(k, u_max, v_max, known.largest, goal.tolerance)
    broken_off = run.complete and run.steps < run.dim  # what was left out was not 0, but rounding
    error += run.noise if broken_off else 0.0
    above = known.above - known.largest
    more = {"iterations": run.steps, "residual": residual}
    sigma_max = interval(high, high - error, high + error + above, goal.tolerance, "lanczos", **more)
    told = resolution(k.dtype, k.shape) * known.largest
    if run.alphas[-1] == 0:  # there is no left vector for a null vector
        return sigma_max, Estimate(0.0, 0.0, max(told, run.noise), False, "lanczos", run.steps), everything
    low, error, residual = _refine(k, u_min, v_min, known.largest, goal.tolerance)
    # Rounding mixes the smallest singular vectors with the next: second order in it, where they are apart.
    gap = (theta[-2] - theta[-1]).item() if run.steps > 1 else known.smallest
    error += run.noise if broken_off else run.noise**2 / max(gap, run.noise, torch.finfo(torch.float64).tiny)
    more = {"iterations": run.steps, "residual": residual}
    if low <= told:
        return sigma_max, Estimate(low, 0.0, low + max(error, told), False, "lanczos", **more), everything
    lower = low * known.below / known.smallest - error
    return sigma_max, interval(low, lower, low + error, goal.tolerance, "lanczos", **more), everything


def _run(operator: LinearOperator, goal: Goal, ends: tuple[str, ...]) -> Bidiagonalization:
    """Lanczos until the bounds of the wanted ends are within half the tolerance, or rounding hides the smallest."""
    run = Bidiagonalization(operator, goal.seed)
    tolerance = goal.tolerance / 2
    steps = max(1, min(goal.max_iterations, int(goal.memory / (sum(operator.shape) * operator.dtype.itemsize))))
    while not run.complete and run.steps < steps:
        run.extend(min(steps, run.steps + max(4, int(STRIDE * run.steps))))
        known = bracket(run, goal.failure)
        done = {
            "max": known.above - known.largest <= tolerance * known.largest,
            "min": known.smallest - known.below <= tolerance * known.smallest or known.smallest <= run.noise,
        }
        if all(done[end] for end in ends):
            break
    return run


def _refine(
    operator: LinearOperator, u: Tensor, v: Tensor, largest: float, tolerance: float
) -> tuple[float, float, float]:
    """The singular value of a triplet from fresh products, what rounding may have done to it, and the residual.

    u^T (K v) and v^T (K^T u) are that number up to second order in the errors of u and v. The same products of u and v
    times some factor are rounded differently: their mean is the value, their spread the rounding. More are taken where
    that brings the error under the tolerance.
    """
    wide_u, wide_v = u.double(), v.double()
    size_u, size_v = (w.norm().clamp_min(torch.finfo(torch.float64).tiny) for w in (wide_u, wide_v))
    wide_u, wide_v = wide_u / size_u, wide_v / size_v
    floor = resolution(operator.dtype, operator.shape) / 8 * largest
    samples: list[float] = []
    residual = sigma = error = 0.0
    for taken in range(0, SAMPLES, 2):
        factor = 1 + (taken * 0.309) % 1
        p = product(operator, operator.matvec, v * factor)[0].double() / (size_v * factor)
        q = product(operator, operator.rmatvec, u * factor)[0].double() / (size_u * factor)
        samples += [torch.dot(wide_u, p).item(), torch.dot(wide_v, q).item()]
        if len(samples) % 8:
            continue
        sigma, error = abs(mean(samples)), SPREAD * stdev(samples) / len(samples) ** 0.5
        residual = max((p - sigma * wide_u).norm().item(), (q - sigma * wide_v).norm().item())
        wanted = tolerance * sigma / 4
        if error <= wanted or error * (len(samples) / SAMPLES) ** 0.5 > wanted:
            break
    return sigma, error + floor, residual


def inverse_dtype(operator: LinearOperator, memory: float) -> torch.dtype | None:
    """What a square operator can be factored in: float64 if matrix and factors fit, else its own dtype, else None."""
    entries = operator.shape[0] * operator.shape[1]
    if entries * operator.dtype.itemsize > DENSE_BYTES:
        return None
    return next((dtype for dtype in (torch.float64, operator.dtype) if 2 * entries * dtype.itemsize <= memory), None)


def smallest_by_inverse(operator: LinearOperator, largest: float, goal: Goal) -> Estimate:
    """sigma_min of a square operator as the largest singular value of its inverse.

    The factorisation's error turns the vectors, not the value: that is taken from products with the matrix itself.

    Raises:
        InputError: if matrix and factors do not fit in memory.
    """
    dtype, rows = inverse_dtype(operator, goal.memory), operator.shape[0]
    if dtype is None:
        raise InputError(
            f"{operator.name} has {rows} rows: its LU factors do not fit in {goal.memory / 2**30:.1f} GiB; raise "
            "memory=, take fewer tokens, or use method='lanczos'"
        )
    if largest == 0:
        return Estimate(0.0, 0.0, 0.0, False, "inverse")
    matrix = operator.to_dense().detach().to(dtype)
    # The residual, first order in what the vectors lack, goes into the bounds: hence the square.
    run = _run(inverse(matrix, operator.name), replace(goal, tolerance=goal.tolerance**2), ("max",))
    known = bracket(run, goal.failure)
    ((u, v),) = run.triplets((0,))
    told = resolution(operator.dtype, operator.shape) * largest
    rounding = BACKWARD * torch.finfo(dtype).eps / rows**0.5 * largest
    if operator.dense is None and operator.blocks is None:
        rounding = max(rounding, told)
    # K^-1 v = u / sigma: the inverse's left vectors are K's right ones.
    low, error, residual = _refine(LinearOperator.from_dense(matrix, operator.name), v, u, largest, goal.tolerance)
    error += rounding + residual
    more = {"iterations": run.steps, "residual": residual}
    if low <= told:
        return Estimate(low, 0.0, low + max(error, told), False, "inverse", **more)
    lower = low * known.largest / known.above - error
    return interval(low, lower, low + error, goal.tolerance, "inverse", **more)
