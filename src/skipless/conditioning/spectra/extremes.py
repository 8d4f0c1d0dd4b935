"""Extreme singular values from iterations: Lanczos on the operator, and Lanczos on its inverse."""

from dataclasses import dataclass, replace
from statistics import mean, stdev

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.conditioning.operators.linear_operator import MAX_DENSE_BYTES, LinearOperator
from skipless.conditioning.spectra.dense import BACKWARD_ERROR, estimate_from_bounds, lu_inverse, resolution
from skipless.conditioning.spectra.estimates import Estimate
from skipless.conditioning.spectra.golub_kahan import Bidiagonalization, checked_product, probabilistic_bounds
from skipless.errors import InputError

# Number of steps between two evaluations of the bounds, relative to those taken so far.
CHECK_STRIDE = 0.05
# A value is averaged over at most this many products; its bounds are this many standard errors wide.
MAX_SAMPLES = 64
STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class LanczosOptions:
    """Settings of the iterations: the arguments of `spectrum` of the same names."""

    tolerance: float
    failure: float
    seed: int
    max_iterations: int
    memory: float


def extremes_by_lanczos(
    operator: LinearOperator, options: LanczosOptions, which: tuple[str, ...] = ("max", "min")
) -> tuple[Estimate, Estimate, Float64[Tensor, " k"] | None]:
    """sigma_max and sigma_min, and all singular values if the run has exhausted the space.

    The run stops when the values in `which` have converged; the other is returned as far as it has converged.
    """
    run = _bidiagonalize(operator, options, which)
    bounds, k, theta = probabilistic_bounds(run, options.failure), run.operator, run.ritz_values()
    (u_max, v_max), (u_min, v_min) = run.triplets((0, -1))
    everything = theta if run.steps == run.dim else None
    high, error, residual = _refine_triplet(k, u_max, v_max, bounds.largest, options.tolerance)
    broke_down = run.complete and run.steps < run.dim  # the remainder was at the level of rounding, not exactly 0
    error += run.noise if broke_down else 0.0
    upper = bounds.upper - bounds.largest
    details = {"iterations": run.steps, "residual": residual}
    sigma_max = estimate_from_bounds(high, high - error, high + error + upper, options.tolerance, "lanczos", **details)
    floor = resolution(k.dtype, k.shape) * bounds.largest
    if run.alphas[-1] == 0:  # a null vector has no left singular vector
        return sigma_max, Estimate(0.0, 0.0, max(floor, run.noise), False, "lanczos", run.steps), everything
    low, error, residual = _refine_triplet(k, u_min, v_min, bounds.largest, options.tolerance)
    # Rounding mixes the smallest singular vector with the next one. Across a gap the effect is second order.
    gap = (theta[-2] - theta[-1]).item() if run.steps > 1 else bounds.smallest
    error += run.noise if broke_down else run.noise**2 / max(gap, run.noise, torch.finfo(torch.float64).tiny)
    details = {"iterations": run.steps, "residual": residual}
    if low <= floor:
        return sigma_max, Estimate(low, 0.0, low + max(error, floor), False, "lanczos", **details), everything
    lower = low * bounds.lower / bounds.smallest - error
    return sigma_max, estimate_from_bounds(low, lower, low + error, options.tolerance, "lanczos", **details), everything


def _bidiagonalize(operator: LinearOperator, options: LanczosOptions, which: tuple[str, ...]) -> Bidiagonalization:
    """Run Lanczos until the bounds of `which` are within half the tolerance, or rounding hides the smallest value."""
    run = Bidiagonalization(operator, options.seed)
    tolerance = options.tolerance / 2
    steps = max(1, min(options.max_iterations, int(options.memory / (sum(operator.shape) * operator.dtype.itemsize))))
    while not run.complete and run.steps < steps:
        run.extend(min(steps, run.steps + max(4, int(CHECK_STRIDE * run.steps))))
        bounds = probabilistic_bounds(run, options.failure)
        done = {
            "max": bounds.upper - bounds.largest <= tolerance * bounds.largest,
            "min": bounds.smallest - bounds.lower <= tolerance * bounds.smallest or bounds.smallest <= run.noise,
        }
        if all(done[end] for end in which):
            break
    return run


def _refine_triplet(
    operator: LinearOperator, u: Tensor, v: Tensor, largest: float, tolerance: float
) -> tuple[float, float, float]:
    """The singular value of a triplet from fresh products, a bound of its rounding error, and the residual.

    u^T (K v) and v^T (K^T u) equal the singular value up to second order in the errors of u and v. Products with scaled
    u and v are rounded differently: their mean is the value, and their standard error measures the rounding. More
    samples are taken if that can bring the error below the tolerance.
    """
    wide_u, wide_v = u.double(), v.double()
    size_u, size_v = (w.norm().clamp_min(torch.finfo(torch.float64).tiny) for w in (wide_u, wide_v))
    wide_u, wide_v = wide_u / size_u, wide_v / size_v
    floor = resolution(operator.dtype, operator.shape) / 8 * largest
    samples: list[float] = []
    residual = sigma = error = 0.0
    for taken in range(0, MAX_SAMPLES, 2):
        factor = 1 + (taken * 0.309) % 1
        p = checked_product(operator, operator.matvec, v * factor)[0].double() / (size_v * factor)
        q = checked_product(operator, operator.rmatvec, u * factor)[0].double() / (size_u * factor)
        samples += [torch.dot(wide_u, p).item(), torch.dot(wide_v, q).item()]
        if len(samples) % 8:
            continue
        sigma, error = abs(mean(samples)), STANDARD_ERRORS * stdev(samples) / len(samples) ** 0.5
        residual = max((p - sigma * wide_u).norm().item(), (q - sigma * wide_v).norm().item())
        target_error = tolerance * sigma / 4
        if error <= target_error or error * (len(samples) / MAX_SAMPLES) ** 0.5 > target_error:
            break
    return sigma, error + floor, residual


def inverse_dtype(operator: LinearOperator, memory: float) -> torch.dtype | None:
    """The dtype to factor a square operator in: float64 if matrix and factors fit, else its own dtype, else None."""
    entries = operator.shape[0] * operator.shape[1]
    if entries * operator.dtype.itemsize > MAX_DENSE_BYTES:
        return None
    return next((dtype for dtype in (torch.float64, operator.dtype) if 2 * entries * dtype.itemsize <= memory), None)


def smallest_by_inverse_lanczos(operator: LinearOperator, largest: float, options: LanczosOptions) -> Estimate:
    """sigma_min of a square operator as the largest singular value of its inverse.

    The error of the factorisation affects the singular vectors only; the value is taken from products with the matrix.

    Raises:
        InputError: if matrix and factors do not fit in memory.
    """
    dtype, rows = inverse_dtype(operator, options.memory), operator.shape[0]
    if dtype is None:
        raise InputError(
            f"{operator.name} has {rows} rows: its LU factors do not fit in {options.memory / 2**30:.1f} GiB; raise "
            "memory=, take fewer tokens, or use method='lanczos'"
        )
    if largest == 0:
        return Estimate(0.0, 0.0, 0.0, False, "inverse")
    matrix = operator.to_dense().detach().to(dtype)
    # The residual enters the bounds, and it is first order in the error of the vectors: hence the squared tolerance.
    run = _bidiagonalize(lu_inverse(matrix, operator.name), replace(options, tolerance=options.tolerance**2), ("max",))
    bounds = probabilistic_bounds(run, options.failure)
    ((u, v),) = run.triplets((0,))
    floor = resolution(operator.dtype, operator.shape) * largest
    rounding = BACKWARD_ERROR * torch.finfo(dtype).eps / rows**0.5 * largest
    if operator.dense is None and operator.blocks is None:
        rounding = max(rounding, floor)
    # K^-1 u = v / sigma: the left singular vectors of the inverse are the right ones of K.
    low, error, residual = _refine_triplet(
        LinearOperator.from_dense(matrix, operator.name), v, u, largest, options.tolerance
    )
    error += rounding + residual
    details = {"iterations": run.steps, "residual": residual}
    if low <= floor:
        return Estimate(low, 0.0, low + max(error, floor), False, "inverse", **details)
    lower = low * bounds.largest / bounds.upper - error
    return estimate_from_bounds(low, lower, low + error, options.tolerance, "inverse", **details)
