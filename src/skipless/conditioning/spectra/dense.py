"""Dense factorisations: the singular values of what fits in memory, and the inverse of what is square."""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from skipless.conditioning.operators.linear_operator import DENSE_BYTES, LinearOperator
from skipless.conditioning.spectra.estimates import Estimate, Spectrum
from skipless.errors import InputError

# LAPACK's error in units of eps * sigma_max, with room: at most 10.3 between svdvals in float32 and in float64, on 200
# random matrices of up to 300 columns with kappa up to 1e6.
BACKWARD = 32.0
DTYPES = (torch.float32, torch.float64)


def matrix_spectrum(
    matrix: Float[Tensor, "*batch r c"],
    *,
    tolerance: float = 1e-6,
    rank_tolerance: float | None = None,
    name: str = "matrix",
) -> list[Spectrum]:
    """The spectrum of each of many small matrices, such as a block's attention maps, a head each.

    Args:
        matrix: `(..., rows, columns)`; factored in float64, float32 matrices too.
        tolerance, rank_tolerance: see `spectrum`.
        name: what they are; in a batch each gets its index, `"map[1, 3]"`.

    Returns:
        A record a matrix, in the order of `matrix.flatten(0, -3)`; one for a single matrix.

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
    if matrix.dtype not in DTYPES:
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
        dense_record(each, (rows, columns), s, matrix.dtype, tolerance=tolerance, rank_tolerance=rank_tolerance)
        for each, s in zip(names, values.reshape(-1, min(rows, columns)), strict=True)
    ]


def singular_values(matrix: Float[Tensor, "*batch r c"], name: str) -> Float64[Tensor, "*batch k"]:
    """All of them, descending, from a factorisation in float64; on the CPU.

    Raises:
        InputError: for entries that are not finite.
    """
    if not matrix.isfinite().all():
        raise InputError(f"{name} has entries that are not finite; look for NaN in the weights")
    return torch.linalg.svdvals(matrix.detach().double()).cpu()


def dense_record(
    name: str,
    shape: tuple[int, int],
    s: Float64[Tensor, " k"],
    dtype: torch.dtype,
    *,
    tolerance: float,
    rank_tolerance: float | None,
    exact: bool = True,
) -> Spectrum:
    """What singular values from a float64 factorisation say of a matrix whose entries are numbers of `dtype`.

    The bounds are those of the matrix as given; where it was assembled from products (`exact` false), each entry has
    its own rounding, and the bounds hold it too. Below `resolution` no value is told from 0, whatever float64 says.
    """
    high, low = s[0].item(), s[-1].item()
    floor = resolution(dtype, shape) * high
    rounding = BACKWARD * torch.finfo(torch.float64).eps * high
    rounding = rounding if exact else max(rounding, floor)
    tolerance_of_rank = default_rank_tolerance(dtype, shape) if rank_tolerance is None else rank_tolerance
    sigma_max = interval(high, high - rounding, high + rounding, tolerance, "dense")
    if low > floor:
        sigma_min = interval(low, low - rounding, low + rounding, tolerance, "dense")
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


def gram_record(operator: LinearOperator, *, tolerance: float, rank_tolerance: float) -> Spectrum:
    """Both ends from the eigenvalues of K K^T or K^T K, the smaller: two products a row, and memory for the result.

    For matrices with a short side and one too long to be stored, such as a parameter Jacobian. Squaring costs half the
    digits: the rounding of the products hides singular values below about sqrt(eps) sigma_max, and the bounds say so.
    How far the result is from symmetric shows rounding that is worse than that of a dot product.
    """
    tall = operator.mT if operator.shape[0] < operator.shape[1] else operator
    size = tall.shape[1]
    if 8 * size**2 > DENSE_BYTES:
        raise InputError(f"{operator.name}: the Gram matrix of its {size} rows is too large; use method='lanczos'")
    gram = torch.empty(size, size, dtype=torch.float64, device=operator.device)
    unit = torch.zeros(size, dtype=operator.dtype, device=operator.device)
    for column in range(size):
        unit[column] = 1
        gram[column] = tall.rmatvec(tall.matvec(unit)).detach()
        unit[column] = 0
    if not gram.isfinite().all():
        raise InputError(f"{operator.name} has products that are not finite; look for NaN in the weights")
    skew = (2 / size**0.5 * (gram - gram.mT).norm()).item()
    squares = torch.linalg.eigvalsh((gram + gram.mT) / 2).flip(0).clamp_min(0).cpu()
    high = squares[0].item()
    rounding = max(skew, BACKWARD * torch.finfo(operator.dtype).eps * high)
    ends = [
        interval(square**0.5, max(square - rounding, 0.0) ** 0.5, (square + rounding) ** 0.5, tolerance, "gram")
        for square in (high, squares[-1].item())
    ]
    rank_tolerance = max(rank_tolerance, (rounding / high) ** 0.5 if high else 0.0)
    return Spectrum(
        name=operator.name,
        shape=operator.shape,
        dtype=str(operator.dtype).removeprefix("torch."),
        sigma_max=ends[0],
        sigma_min=ends[1],
        rank=int((squares.sqrt() > rank_tolerance * high**0.5).sum()),
        rank_tolerance=rank_tolerance,
        tolerance=tolerance,
        failure=0.0,
        seed=0,
    )


def interval(value: float, lower: float, upper: float, tolerance: float, method: str, **more: object) -> Estimate:
    """An estimate that has converged if its bounds are as near as `tolerance` asks."""
    last_digits = BACKWARD * torch.finfo(torch.float64).eps * value
    lower, upper = max(lower - last_digits, 0.0), upper + last_digits
    estimate = Estimate(value, lower, upper, False, method, **more)  # pyright: ignore[reportArgumentType]
    return replace(estimate, converged=estimate.error is not None and estimate.error <= tolerance)


def resolution(dtype: torch.dtype, shape: tuple[int, int]) -> float:
    """The least sigma / sigma_max that is told from 0 when every entry or product is rounded to `dtype`.

    Independent roundings move a singular value by u^T E v, a mean over the entries: eps / sqrt(n) of sigma_max, here
    with a factor of 4.
    """
    return 4 * torch.finfo(dtype).eps / min(shape) ** 0.5


def default_rank_tolerance(dtype: torch.dtype, shape: tuple[int, int]) -> float:
    """eps sqrt(max(shape)): what rounding adds to the norm, n roundings at random rather than all in one direction."""
    return torch.finfo(dtype).eps * max(shape) ** 0.5


def inverse(matrix: Float[Tensor, "n n"], name: str) -> LinearOperator:
    """K^-1 as an operator, from K's LU factors.

    A pivot of exactly 0 is replaced by one of rounding's size, within the factorisation's own error: the inverse of a
    singular matrix is then huge, and its largest singular vector K's null vector.
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
