"""Records of measured spectra: numbers with the intervals that they are known to lie in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from skipless.display import Record, Table
from skipless.display.axes import ruled
from skipless.display.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Method = Literal["dense", "gram", "lanczos", "inverse"]

# A number with at most this relative error is printed as a value, any other as its bounds.
KNOWN_RELATIVE_ERROR = 0.1


@dataclass(frozen=True, repr=False)
class Estimate(Record):
    """A non-negative number with its error bounds.

    Attributes:
        value: the best single number. If `upper` is None, it is the lower bound.
        lower: lower bound of the number; 0 if nothing better is known.
        upper: upper bound of the number; None if none is known.
        converged: whether the bounds are within the requested tolerance.
        method: how the number was found, see `spectrum`.
        iterations: number of pairs of products with the operator and its transpose; 0 for a factorisation.
        residual: the larger of |K v - s u| and |K^T u - s v| for the singular triplet (s, u, v); None if none was
            formed.

    Example:
        >>> print(Estimate(1650.0, 1649.99, 1650.01, False, "lanczos"))
        1.65e+03 (to 6e-06)
        >>> print(Estimate(3.1e6, 3.1e6, None, False, "lanczos"))
        >= 3.1e+06
    """

    value: float
    lower: float
    upper: float | None
    converged: bool
    method: Method
    iterations: int = 0
    residual: float | None = None

    @property
    def error(self) -> float | None:
        """Upper bound of the relative error; None if it is not known."""
        if self.upper is None or self.value <= 0:
            return None
        return max(self.upper - self.value, self.value - self.lower) / self.value

    @property
    def known(self) -> bool:
        """Whether the number is known well enough to be quoted as a value: to a tenth."""
        return self.error is not None and self.error <= KNOWN_RELATIVE_ERROR

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the relative error."""
        return {
            "value": self.value,
            "lower": self.lower,
            "upper": self.upper,
            "error": self.error,
            "converged": self.converged,
            "method": self.method,
            "iterations": self.iterations,
            "residual": self.residual,
        }

    def _summary(self) -> str:
        upper = "unknown" if self.upper is None else f"{self.upper:.4g}"
        steps = f", {self.iterations} steps" if self.iterations else ""
        return f"{self}; {self.lower:.4g} to {upper}, {self.method}{steps}{'' if self.converged else ', not converged'}"

    def __str__(self) -> str:
        if self.converged:
            return f"{self.value:.4g}"
        if self.known:
            return f"{self.value:.3g} (to {self.error:.0e})"
        if self.upper is None:
            return f">= {self.lower:.2g}"
        return f"<= {self.upper:.2g}" if self.lower == 0 else f"{self.lower:.2g} to {self.upper:.2g}"


@dataclass(frozen=True, repr=False)
class Spectrum(Record):
    """The extreme singular values of an operator. No number in it is infinite or NaN.

    Attributes:
        name: name of the operator.
        shape: numbers of rows and columns.
        dtype: dtype of its products, `"float32"` or `"float64"`.
        sigma_max, sigma_min: the largest singular value and the min(shape)-th.
        rank: number of singular values above `rank_tolerance * sigma_max`; None if they were not all found.
        rank_tolerance: threshold of the rank, relative to sigma_max.
        tolerance: the relative error that `converged` guarantees.
        failure: probability, over the seed, that a bound of an iterative method is wrong; 0 for a dense method.
        seed: seed of the start vector.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    sigma_max: Estimate
    sigma_min: Estimate
    rank: int | None
    rank_tolerance: float
    tolerance: float
    failure: float
    seed: int

    _size: ClassVar[tuple[float, float]] = (6.4, 1.8)

    @property
    def kappa(self) -> Estimate:
        """kappa(K) = sigma_max / sigma_min: a value if both are known, a lower bound if not.

        The lower bound of a singular operator reflects the precision; its `rank` is below min(shape).
        """
        return self._kappa(1)

    @property
    def kappa_gram(self) -> Estimate:
        """kappa(K K^T) = kappa(K)^2, the number of the paper's Tables 5 and 6, without forming the Gram matrix."""
        return self._kappa(2)

    @property
    def converged(self) -> bool:
        """Whether both extreme singular values have converged."""
        return self.sigma_max.converged and self.sigma_min.converged

    @property
    def method(self) -> Method:
        """How sigma_min, the harder of the two, was found."""
        return self.sigma_min.method

    def _kappa(self, power: int) -> Estimate:
        high, low = self.sigma_max, self.sigma_min
        # For a zero matrix only kappa >= 1 is known, which holds for every matrix.
        lower = max(high.lower / low.upper, 1.0) if low.upper else 1.0
        upper = high.upper / low.lower if high.upper is not None and low.lower > 0 else None
        value = max(high.value / low.value, 1.0) if upper is not None and low.value > 0 else lower
        if upper is not None and max(upper - value, value - lower) > KNOWN_RELATIVE_ERROR * value:
            value = lower
        upper = None if upper is None or not math.isfinite(upper**power) else upper**power
        iterations = high.iterations if high.method == low.method else high.iterations + low.iterations
        return Estimate(value**power, lower**power, upper, self.converged, low.method, iterations)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes, with kappa and kappa_gram."""
        numbers = ("sigma_max", "sigma_min", "kappa", "kappa_gram")
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            **{number: getattr(self, number).as_json() for number in numbers},
            "rank": self.rank,
            "rank_tolerance": self.rank_tolerance,
            "tolerance": self.tolerance,
            "failure": self.failure,
            "seed": self.seed,
        }

    def _summary(self) -> str:
        return str(self)

    def tables(self) -> tuple[Table, ...]:
        """The one table: kappa, kappa of the Gram matrix, and both ends, with their bounds."""
        return (_ends_table(self),)

    def _draw(self, axes: "Axes") -> None:
        for place, end in enumerate((self.sigma_min, self.sigma_max)):
            _draw_interval(axes, place, end)
        axes.set_xscale("log")
        axes.set_yticks([0, 1], ["sigma_min", "sigma_max"])
        axes.set_ylim(-0.6, 1.6)
        axes.set_title(f"{self.name}, kappa {self.kappa}", loc="left", fontsize=10)
        ruled(axes, "x")

    def __str__(self) -> str:
        kappa = self.kappa
        relation = "" if str(kappa).startswith(">") else "= "
        parts = [f"kappa {relation}{kappa}", f"sigma_max {self.sigma_max}", f"sigma_min {self.sigma_min}"]
        full = min(self.shape)
        if self.rank is not None and self.rank < full:
            parts.append(f"rank {self.rank} of {full} above {self.rank_tolerance:.0e} sigma_max")
        steps = f", {self.sigma_min.iterations} steps, seed {self.seed}" if self.sigma_min.iterations else ""
        rows, columns = self.shape
        how = f"{self.dtype} {self.method}{steps}{'' if self.converged else ', not converged'}"
        return f"{self.name} ({rows} x {columns}): {', '.join(parts)} [{how}]"


def _draw_interval(axes: "Axes", place: float, end: Estimate) -> None:
    """A number with its bounds on a log axis: a point where it is known, else a triangle towards where it may lie."""
    colour, high = COLOURS["init"], end.value if end.upper is None else end.upper
    if end.known or end.lower > 0:
        axes.plot([max(end.lower, 1e-3 * high), high], [place, place], color=colour, linewidth=5, alpha=0.35)
    if end.known:
        axes.plot([end.value], [place], marker="o", color=colour)
    else:
        marker, at = (">", end.lower) if end.upper is None else ("<", high)
        axes.plot([at], [place], marker=marker, color=colour, markerfacecolor="white")


def spectra_table(spectra: Mapping[str, Spectrum], what: str, caption: str = "") -> Table:
    """A row for each spectrum.

    Args:
        spectra: by name.
        what: what the names are.
        caption: ahead of how the numbers were found.
    """
    rows = [
        (name, str(one.kappa), str(one.sigma_max), str(one.sigma_min), _rank(one), one.method)
        for name, one in spectra.items()
    ]
    first = next(iter(spectra.values()), None)
    found = [] if first is None else [f"{first.shape[0]} x {first.shape[1]}, {first.dtype}, seed {first.seed}"]
    head = (what, "kappa", "sigma_max", "sigma_min", "rank", "method")
    return Table(head, rows, "; ".join([*([caption] if caption else []), *found]), align="lrrrrl")


def _ends_table(spectrum: Spectrum) -> Table:
    """The numbers of one spectrum with their bounds."""
    numbers = {name: getattr(spectrum, name) for name in ("kappa", "kappa_gram", "sigma_max", "sigma_min")}
    rows = [
        (name, str(one), f"{one.lower:.4g}", "" if one.upper is None else f"{one.upper:.4g}", one.method)
        for name, one in numbers.items()
    ]
    caption = (
        f"{spectrum.name}, {spectrum.shape[0]} x {spectrum.shape[1]}, {spectrum.dtype}, seed {spectrum.seed}, "
        f"rank {_rank(spectrum) or 'unknown'} above {spectrum.rank_tolerance:.0e} sigma_max"
    )
    notes = () if spectrum.converged else (f"! not converged to {spectrum.tolerance:.0e}",)
    return Table(("number", "value", "at least", "at most", "method"), rows, caption, notes, align="lrrrl")


def _rank(spectrum: Spectrum) -> str:
    return "" if spectrum.rank is None else f"{spectrum.rank} of {min(spectrum.shape)}"
