"""spectrum: the extreme singular values of an operator, with error bounds."""

from dataclasses import replace
from typing import get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.choices import SpectrumMethod
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.dense import (
    SUPPORTED_DTYPES,
    default_rank_tolerance,
    singular_values,
    spectrum_from_gram,
    spectrum_from_singular_values,
)
from skipless.conditioning.spectra.estimates import Estimate, Spectrum
from skipless.conditioning.spectra.extremes import (
    LanczosOptions,
    extremes_by_lanczos,
    inverse_dtype,
    smallest_by_inverse_lanczos,
)
from skipless.errors import InputError
from skipless.precision import full_precision

# A dense factorisation of 1,500 rows takes a second or two on one core, no more than Lanczos at that size.
DENSE_ROWS = 1500
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
DENSE_ENTRIES = 10 * DENSE_ROWS**2


@full_precision()
def spectrum(
    operator: LinearOperator,
    *,
    method: SpectrumMethod = "auto",
    tolerance: float | None = None,
    max_iterations: int = 1000,
    seed: int = 0,
    rank_tolerance: float | None = None,
    failure: float = 1e-3,
    inverse_rows: int = 8192,
    memory: float = 4 * 2**30,
) -> Spectrum:
    """sigma_max, sigma_min, kappa and rank of a matrix given by its products (sections 4 and A.3).

    - `"dense"`: all singular values, by a factorisation in float64; block by block if the operator has blocks.
    - `"lanczos"`: Golub-Kahan-Lanczos bidiagonalisation with full reorthogonalisation. sigma_max takes tens of steps.
      sigma_min takes more, depending on how dense the lower end of the spectrum is: 591 for a ViT-S block with kappa =
      991, 1,000 for one with 206 (tolerance 1e-4). Each bound holds with probability `1 - failure` over the seed.
    - `"inverse"`: LU factors of the dense matrix, then Lanczos on the inverse, which takes a few steps for any kappa.
    - `"gram"`: the eigenvalues of K K^T or K^T K, for matrices with one short side and one too long to be stored, such
      as parameter Jacobians. It resolves kappa up to 10^7 in float64 and 10^3 in float32.
    - `"auto"` (default): dense or Gram if the shorter side, or each block, has up to 1,500 rows. Otherwise Lanczos. If
      that does not converge, the inverse up to `inverse_rows`. Otherwise the bound that Lanczos gave, "kappa >= ...".

    The result describes the operator as its products define it. In float32 the products are rounded, which moves
    sigma_min by about 5e-7 sigma_max / sqrt(n) at ViT-S size. This rounding is measured during the run and included in
    the bounds. Lanczos stores two vectors for each step: 360 MB for 591 steps on a ViT-S block in float32.

    Args:
        operator: of any shape, float32 or float64.
        method: see above.
        tolerance: the relative error at which a singular value counts as converged; by default 1e-6 in float64 and 1e-4
            in float32, whose products do not resolve 1e-6 at kappa = 1,000.
        max_iterations: maximum number of Lanczos steps, each a product with the operator and one with its transpose.
        seed: seed of the start vector.
        rank_tolerance: singular values above this multiple of sigma_max count for the rank; by default eps
            sqrt(max(shape)) of the operator's dtype. The rank is None if not all singular values were found.
        failure: probability, over the seed, that a bound of an iterative method is wrong.
        inverse_rows: largest matrix that `"auto"` factors; 20,000 rows take minutes on two cores.
        memory: limit in bytes for Lanczos vectors or LU factors. Lanczos stops at the limit; a factorisation beyond it
            is not started.

    Raises:
        InputError: for half precision, empty operators, products that are not finite or are not of one matrix and its
            transpose, invalid options, and matrices that do not fit in memory.

    Example:
        >>> matrix = torch.diag(torch.linspace(1.0, 3.0, 200, dtype=torch.float64))
        >>> record = spectrum(LinearOperator.from_dense(matrix, "ramp"), method="lanczos")
        >>> round(record.kappa.value, 4), record.kappa.converged, record.rank
        (3.0, True, None)
        >>> print(spectrum(LinearOperator.from_dense(matrix, "ramp")))
        ramp (200 x 200): kappa = 3, sigma_max 3, sigma_min 1 [float64 dense]
    """
    tolerance = TOLERANCE.get(operator.dtype, 1e-6) if tolerance is None else tolerance
    _check(operator, method, tolerance, max_iterations, failure)
    rank_tolerance = (
        default_rank_tolerance(operator.dtype, operator.shape) if rank_tolerance is None else rank_tolerance
    )
    record = (
        _dense_spectrum(operator, method, tolerance, rank_tolerance) if method in {"auto", "dense", "gram"} else None
    )
    if record is not None:
        return replace(record, seed=seed)
    options = LanczosOptions(tolerance, failure, seed, max_iterations, memory)
    sigma_max, sigma_min, ritz = _iterated(operator, method, options, inverse_rows)
    return Spectrum(
        name=operator.name,
        shape=operator.shape,
        dtype=str(operator.dtype).removeprefix("torch."),
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        rank=None if ritz is None else int((ritz > rank_tolerance * sigma_max.value).sum()),
        rank_tolerance=rank_tolerance,
        tolerance=tolerance,
        failure=failure,
        seed=seed,
    )


def _iterated(
    operator: LinearOperator, method: SpectrumMethod, options: LanczosOptions, inverse_rows: int
) -> tuple[Estimate, Estimate, Float64[Tensor, " r"] | None]:
    """Both extreme singular values by Lanczos or by the inverse, and all Ritz values where they are all values."""
    rows, columns = operator.shape
    if method == "inverse" and rows != columns:
        raise InputError(f"{operator.name} is {rows} x {columns}: method='inverse' needs a square one; use 'lanczos'")
    which = ("max",) if method == "inverse" else ("max", "min")
    sigma_max, sigma_min, ritz = extremes_by_lanczos(operator, options, which)
    fits = method == "auto" and rows == columns <= inverse_rows and inverse_dtype(operator, options.memory) is not None
    if method == "inverse" or (fits and not sigma_min.converged and ritz is None):
        sigma_min = smallest_by_inverse_lanczos(operator, sigma_max.value, options)
    return sigma_max, sigma_min, ritz


def _check(operator: LinearOperator, method: str, tolerance: float, max_iterations: int, failure: float) -> None:
    if method not in get_args(SpectrumMethod):
        raise InputError(f"method={method!r} is not one of {', '.join(map(repr, get_args(SpectrumMethod)))}")
    if operator.dtype not in SUPPORTED_DTYPES:
        name = str(operator.dtype).removeprefix("torch.")
        raise InputError(f"{operator.name} has {name} products; convert the model to float32 or float64 first")
    if min(operator.shape) < 1:
        raise InputError(f"{operator.name} has shape {operator.shape}: there is nothing to measure")
    if not 0 < tolerance < 1 or not 0 < failure < 1:
        raise InputError(f"tolerance={tolerance}, failure={failure}: both must lie between 0 and 1")
    if max_iterations < 1:
        raise InputError(f"max_iterations={max_iterations}: at least one is needed")


def _dense_spectrum(operator: LinearOperator, method: str, tolerance: float, rank_tolerance: float) -> Spectrum | None:
    """The record of a dense factorisation; None if `"auto"` finds it too expensive."""
    rows, columns = operator.shape
    small = min(rows, columns) <= DENSE_ROWS
    blocks = operator.blocks() if operator.blocks is not None and method != "gram" else None
    if blocks is not None and (method == "dense" or blocks.shape[-1] <= DENSE_ROWS):
        s = singular_values(blocks, operator.name).flatten().sort(descending=True).values
    elif method == "dense" or (method == "auto" and small and rows * columns <= DENSE_ENTRIES):
        s = singular_values(operator.to_dense(), operator.name)
    else:
        wanted = method == "gram" or small
        return spectrum_from_gram(operator, tolerance=tolerance, rank_tolerance=rank_tolerance) if wanted else None
    exact = operator.dense is not None or blocks is not None
    return spectrum_from_singular_values(
        operator.name,
        operator.shape,
        s,
        operator.dtype,
        tolerance=tolerance,
        rank_tolerance=rank_tolerance,
        exact=exact,
    )
