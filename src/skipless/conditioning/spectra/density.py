"""spectral_density: the density of an operator's singular values."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.dense import SUPPORTED_DTYPES, default_rank_tolerance, singular_values
from skipless.conditioning.spectra.estimates import Method
from skipless.conditioning.spectra.golub_kahan import Bidiagonalization
from skipless.display import Record, Table
from skipless.display.axes import ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError
from skipless.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to this many rows all singular values are computed, which takes about a second on one core.
DENSE_ROWS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class SpectralDensity(Record):
    """The density of singular values over log10(sigma); it integrates to 1 over decades.

    Attributes:
        name: name of the operator.
        grid: values of sigma, evenly spaced in log10.
        density: fraction of the singular values per decade, at each grid value.
        error: standard error of `density` over the random vectors; 0 if all singular values are known.
        sigma, weight: the quadrature nodes that `density` smooths, and their weights; nodes below working precision are
            raised to it.
        width: standard deviation of the smoothing kernel, in decades.
        method: `"dense"` or `"lanczos"`.
        vectors, steps: numbers of random vectors and of Lanczos steps; 0 with `"dense"`.
        seed: seed of the random vectors.
    """

    name: str
    grid: Float64[Tensor, " p"]
    density: Float64[Tensor, " p"]
    error: Float64[Tensor, " p"]
    sigma: Float64[Tensor, " k"]
    weight: Float64[Tensor, " k"]
    width: float
    method: Method
    vectors: int
    steps: int
    seed: int

    def share_below(self, sigma: float) -> float:
        """The fraction of the singular values below `sigma`."""
        return self.weight[self.sigma < sigma].sum().item()

    def _summary(self) -> str:
        low, high = self.sigma.min().item(), self.sigma.max().item()
        return f"{self.name}, sigma {low:.3g} to {high:.3g}, median {self._quantile(0.5):.3g}; {self._setting()}"

    def tables(self) -> tuple[Table, ...]:
        """Quantiles of the singular values."""
        shares = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
        rows = [(f"{100 * share:g} %", f"{self._quantile(share):.4g}") for share in shares]
        return (Table(("share of the values", "sigma, at most"), rows, f"{self.name}; {self._setting()}", align="rr"),)

    def _draw(self, axes: "Axes") -> None:
        sigma, density, error = (part.cpu().numpy() for part in (self.grid, self.density, self.error))
        axes.fill_between(sigma, density - error, density + error, color=COLOURS["init"], alpha=0.2, linewidth=0)
        axes.plot(sigma, density, color=COLOURS["init"], linewidth=1.4)
        axes.set_xscale("log")
        axes.set_xlabel("sigma", loc="right", labelpad=2)
        axes.set_ylabel("share of the values a decade")
        axes.set_ylim(bottom=0)
        axes.set_title(f"{self.name}; {self._setting()}", loc="left", fontsize=10)
        ruled(axes)

    def _quantile(self, share: float) -> float:
        """The singular value that a share of them does not exceed."""
        order = self.sigma.argsort()
        reached = self.weight[order].cumsum(0) >= share * self.weight.sum() * (1 - 1e-9)
        return self.sigma[order][int(reached.double().argmax())].item()

    def _setting(self) -> str:
        drawn = f", {self.vectors} vectors, {self.steps} steps, seed {self.seed}" if self.vectors else ""
        return f"{len(self.sigma)} nodes, {self.method}{drawn}"

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; the nodes are left out."""
        return {
            "name": self.name,
            "grid": self.grid.tolist(),
            "density": self.density.tolist(),
            "error": self.error.tolist(),
            "width": self.width,
            "method": self.method,
            "vectors": self.vectors,
            "steps": self.steps,
            "seed": self.seed,
        }


@full_precision()
def spectral_density(
    operator: LinearOperator,
    *,
    vectors: int = 8,
    steps: int = 80,
    points: int = 200,
    width: float = 0.05,
    seed: int = 0,
    dense_rows: int = DENSE_ROWS,
) -> SpectralDensity:
    """The density of an operator's min(shape) singular values.

    Up to `dense_rows`, all singular values are computed. Beyond that, stochastic Lanczos quadrature is used: for a
    random unit vector v, the singular values of B_k, weighted by the squared first components of its right singular
    vectors, match the first 2 k - 1 moments of the spectral measure of K^T K at v. The mean over vectors is the
    spectral density (Golub and Welsch 1969; Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017). For the extreme
    singular values use `spectrum`.

    Args:
        operator: of any shape, float32 or float64.
        vectors: number of random vectors, at least 2.
        steps: number of Lanczos steps for each vector.
        points: number of grid points.
        width: standard deviation of the Gaussian smoothing kernel, in decades.
        seed: seed of the random vectors.
        dense_rows: largest size whose singular values are all computed.

    Raises:
        InputError: for half precision, empty or zero operators, products that are not finite, and counts that are too
        small.

    Example:
        >>> matrix = torch.diag(torch.tensor([100.0] * 30 + [1.0] * 70))
        >>> found = spectral_density(LinearOperator.from_dense(matrix))
        >>> round(found.share_below(10.0), 3), found.method
        (0.7, 'dense')
    """
    _check(operator, vectors, steps, points, width)
    dense = operator.blocks is not None or max(operator.shape) <= dense_rows
    found = _dense_nodes(operator) if dense else [_lanczos_nodes(operator, steps, seed + i) for i in range(vectors)]
    sigma, weight = (torch.cat(parts) for parts in zip(*found, strict=True))
    weight = weight / len(found)
    top = sigma.max().item()
    if top == 0:
        raise InputError(f"{operator.name} is 0 to working precision: it has no density over log sigma")
    floor = default_rank_tolerance(operator.dtype, operator.shape) * top
    low, high = (math.log10(max(end, floor)) for end in (sigma.min().item(), top))
    grid = torch.linspace(low - 4 * width, high + 4 * width, points, dtype=torch.float64)
    curves = torch.stack([_gaussian_smoothing(grid, s.clamp_min(floor).log10(), w, width) for s, w in found])
    error = torch.zeros_like(grid) if dense else curves.std(0) / len(found) ** 0.5
    return SpectralDensity(
        name=operator.name,
        grid=10**grid,
        density=curves.mean(0),
        error=error,
        sigma=sigma.clamp_min(floor),
        weight=weight,
        width=width,
        method="dense" if dense else "lanczos",
        vectors=0 if dense else vectors,
        steps=0 if dense else steps,
        seed=seed,
    )


def _check(operator: LinearOperator, vectors: int, steps: int, points: int, width: float) -> None:
    if operator.dtype not in SUPPORTED_DTYPES or min(operator.shape) < 1:
        raise InputError(f"{operator.name} is {operator.dtype}, {operator.shape}: it must be float32 or 64, not empty")
    if vectors < 2 or steps < 1 or points < 2 or not 0 < width < math.inf:
        raise InputError(
            f"vectors={vectors}, steps={steps}, points={points}, width={width}: at least 2, 1, 2 and a positive width"
        )


def _dense_nodes(operator: LinearOperator) -> list[tuple[Tensor, Tensor]]:
    matrix = operator.to_dense() if operator.blocks is None else operator.blocks()
    sigma = singular_values(matrix, operator.name).flatten()
    return [(sigma, torch.full_like(sigma, 1 / len(sigma)))]


def _lanczos_nodes(operator: LinearOperator, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Quadrature nodes and weights from one random vector."""
    run = Bidiagonalization(operator, seed)
    run.extend(steps)
    return run.quadrature()


def _gaussian_smoothing(grid: Tensor, at: Tensor, weight: Tensor, width: float) -> Tensor:
    bells = torch.exp(-0.5 * ((grid[:, None] - at) / width).square())
    return bells @ weight / (width * math.sqrt(2 * math.pi))
