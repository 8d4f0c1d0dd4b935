"""Dense factorisations: singular values of matrices that fit in memory, and the LU inverse of square ones."""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from skipless.conditioning.operators.linear_operator import MAX_DENSE_BYTES, LinearOperator
from skipless.conditioning.spectra.estimates import Estimate, Spectrum
from skipless.errors import InputError

# LAPACK's backward error in units of eps * sigma_max, with a margin: on 200 random matrices of up to 300 columns and
# kappa up to 1e6, svdvals in float32 and in float64 differ by at most 10.3.
BACKWARD_ERROR = 32.0
SUPPORTED_DTYPES = (torch.float32, torch.float64)


def matrix_spectrum(
    matrix: Float[Tensor, "*batch r c"],
    *,
    tolerance: float = 1e-6,
    rank_tolerance: float | None = None,
    name: str = "matrix",
) -> list[Spectrum]:
    """The spectrum of each of many small matrices, such as the attention maps of a block's heads.

    Args:
        matrix: `(..., rows, columns)`; factored in float64 in any case.
        tolerance, rank_tolerance: see `spectrum`.
        name: name of the matrices; in a batch, each gets its index: `"map[1, 3]"`.

    Returns:
        One record for each matrix, in the order of `matrix.flatten(0, -3)`.

    Raises:
        InputError: for half precision, empty matrices, and entries that are not finite.

    Example:
        >>> maps = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> for record in matrix_spectrum(maps, name="map"):
        ...     print(record)
        map[0] (2 x 2): kappa = 2, sigma_max 2, sigma_min 1 [float32 dense]
        map[1] (2 x 2): kappa >= 3e+06, sigma_max 2, sigma_min <= 6.7e-07, rank 1 of 2 above 2e-07 sigma_max \
[float32 dense, not converged]
    """
    if matrix.dtype not in SUPPORTED_DTYPES:
        raise InputError(
            f"{name} is {str(matrix.dtype).removeprefix('torch.')}; convert it to float32 or float64 first"
        )
    *batch, rows, columns = matrix.shape
    if matrix.numel() == 0:
        raise InputError(f"{name} has shape {tuple(matrix.shape)}: there is nothing to measure")
    values = singular_values(matrix, name)
    indices = itertools.product(*map(range, batch))
    names = [f"{name}[{', '.join(map(str, index))}]" if batch else name for index in indices]
    return [
        spectrum_from_singular_values(
            each, (rows, columns), s, matrix.dtype, tolerance=tolerance, rank_tolerance=rank_tolerance
        )
        for each, s in zip(names, values.reshape(-1, min(rows, columns)), strict=True)
    ]


def singular_values(matrix: Float[Tensor, "*batch r c"], name: str) -> Float64[Tensor, "*batch k"]:
    """All singular values, descending, computed in float64 and returned on the CPU.

    Raises:
        InputError: for entries that are not finite.
    """
    if not matrix.isfinite().all():
        raise InputError(f"{name} has entries that are not finite; look for NaN in the weights")
    return torch.linalg.svdvals(matrix.detach().double()).cpu()


def spectrum_from_singular_values(
    name: str,
    shape: tuple[int, int],
    s: Float64[Tensor, " k"],
    dtype: torch.dtype,
    *,
    tolerance: float,
    rank_tolerance: float | None,
    exact: bool = True,
) -> Spectrum:
    """The spectrum record of a matrix with entries of `dtype`, from singular values computed in float64.

    The bounds describe the matrix as given. If it was assembled from products (`exact` is false), each entry has a
    rounding error of its own, and the bounds include it. A value below `resolution` is not distinguished from 0.
    """
    high, low = s[0].item(), s[-1].item()
    floor = resolution(dtype, shape) * high
    rounding = BACKWARD_ERROR * torch.finfo(torch.float64).eps * high
    rounding = rounding if exact else max(rounding, floor)
    tolerance_of_rank = default_rank_tolerance(dtype, shape) if rank_tolerance is None else rank_tolerance
    sigma_max = estimate_from_bounds(high, high - rounding, high + rounding, tolerance, "dense")
    if low > floor:
        sigma_min = estimate_from_bounds(low, low - rounding, low + rounding, tolerance, "dense")
    else:
        sigma_min = Estimate(low, 0.0, low + floor, False, "dense")
    return Spectrum(
        name=name,
        shape=shape,
        dtype=str(dtype).removeprefix("torch."),
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        rank=int((s > tolerance_of_rank * high).sum()),
        rank_tolerance=tolerance_of_rank,
        tolerance=tolerance,
        failure=0.0,
        seed=0,
    )


def spectrum_from_gram(operator: LinearOperator, *, tolerance: float, rank_tolerance: float) -> Spectrum:
    """Both extreme singular values from the eigenvalues of the smaller Gram matrix, K K^T or K^T K.

    This is for matrices with one short side and one too long to be stored, such as a parameter Jacobian. It takes two
    products for each row of the Gram matrix. Squaring costs half the digits: rounding hides singular values below about
    sqrt(eps) sigma_max, and the bounds include that. The asymmetry of the result reveals larger rounding errors.
    """
    tall = operator.mT if operator.shape[0] < operator.shape[1] else operator
    size = tall.shape[1]
    if 8 * size**2 > MAX_DENSE_BYTES:
        raise InputError(f"{operator.name}: the Gram matrix of its {size} rows is too large; use method='lanczos'")
    gram = torch.empty(size, size, dtype=torch.float64, device=operator.device)
    unit = torch.zeros(size, dtype=operator.dtype, device=operator.device)
    for column in range(size):
        unit[column] = 1
        gram[column] = tall.rmatvec(tall.matvec(unit)).detach()
        unit[column] = 0
    if not gram.isfinite().all():
        raise InputError(f"{operator.name} has products that are not finite; look for NaN in the weights")
    asymmetry = (2 / size**0.5 * (gram - gram.mT).norm()).item()
    squares = torch.linalg.eigvalsh((gram + gram.mT) / 2).flip(0).clamp_min(0).cpu()
    high = squares[0].item()
    rounding = max(asymmetry, BACKWARD_ERROR * torch.finfo(operator.dtype).eps * high)
    extremes = [
        estimate_from_bounds(
            square**0.5, max(square - rounding, 0.0) ** 0.5, (square + rounding) ** 0.5, tolerance, "gram"
        )
        for square in (high, squares[-1].item())
    ]
    rank_tolerance = max(rank_tolerance, (rounding / high) ** 0.5 if high else 0.0)
    return Spectrum(
        name=operator.name,
        shape=operator.shape,
        dtype=str(operator.dtype).removeprefix("torch."),
        sigma_max=extremes[0],
        sigma_min=extremes[1],
        rank=int((squares.sqrt() > rank_tolerance * high**0.5).sum()),
        rank_tolerance=rank_tolerance,
        tolerance=tolerance,
        failure=0.0,
        seed=0,
    )


def estimate_from_bounds(
    value: float, lower: float, upper: float, tolerance: float, method: str, **more: object
) -> Estimate:
    """An estimate from a value and its bounds; it has converged if the relative error is within `tolerance`."""
    last_digits = BACKWARD_ERROR * torch.finfo(torch.float64).eps * value
    lower, upper = max(lower - last_digits, 0.0), upper + last_digits
    estimate = Estimate(value, lower, upper, False, method, **more)  # pyright: ignore[reportArgumentType]
    return replace(estimate, converged=estimate.error is not None and estimate.error <= tolerance)


def resolution(dtype: torch.dtype, shape: tuple[int, int]) -> float:
    """The smallest sigma / sigma_max that is distinguished from 0 when every entry or product is rounded to `dtype`.

    Independent rounding errors E move a singular value by u^T E v, which averages over the entries: eps / sqrt(n) of
    sigma_max, here times a safety factor of 4.
    """
    return 4 * torch.finfo(dtype).eps / min(shape) ** 0.5


def default_rank_tolerance(dtype: torch.dtype, shape: tuple[int, int]) -> float:
    """eps sqrt(max(shape)), the norm of rounding errors that are independent rather than all in one direction."""
    return torch.finfo(dtype).eps * max(shape) ** 0.5


def lu_inverse(matrix: Float[Tensor, "n n"], name: str) -> LinearOperator:
    """K^-1 as an operator, from the LU factors of K.

    A pivot of exactly 0 is replaced by one of the size of rounding, which is within the factorisation's own error. The
    inverse of a singular matrix is then huge, and its largest singular vector is the null vector of K.
    """
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    diagonal = factors.diagonal()
    tiny = torch.finfo(matrix.dtype).eps * diagonal.abs().max().clamp_min(torch.finfo(matrix.dtype).tiny)
    diagonal.copy_(torch.where(diagonal == 0, tiny, diagonal))

    def solve(vector: Tensor, adjoint: bool = False) -> Tensor:
        return torch.linalg.lu_solve(factors, pivots, vector.unsqueeze(1), adjoint=adjoint).squeeze(1)

    return LinearOperator(
        (len(matrix), len(matrix)),
        solve,
        lambda vector: solve(vector, adjoint=True),
        matrix.dtype,
        matrix.device,
        f"inverse of {name}",
    )
