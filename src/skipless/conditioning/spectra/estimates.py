"""What a measured spectrum is recorded as: numbers with the intervals that they are known to lie in."""

import math
from dataclasses import dataclass
from typing import Any, Literal

Method = Literal["dense", "gram", "lanczos", "inverse"]

# A number known to a tenth is printed as that number; one that is known worse, as its bounds.
WORTH_A_VALUE = 0.1


@dataclass(frozen=True)
class Estimate:
    """A number that is not negative, and how far it can be trusted.

    Attributes:
        value: the best single number. Where `upper` is None, it is the lower bound.
        lower: the number is at least this; 0 where nothing better is known.
        upper: it is at most this; None where nothing is known.
        converged: whether the bounds are within the tolerance that was asked for.
        method: how it was found, see `spectrum`.
        iterations: products with the operator and with its transpose, in pairs; 0 for a factorisation.
        residual: of the singular triplet, |K v - s u| and |K^T u - s v|, the larger; None where none was formed.

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
        """The relative error at most; None where that is not known."""
        if self.upper is None or self.value <= 0:
            return None
        return max(self.upper - self.value, self.value - self.lower) / self.value

    @property
    def known(self) -> bool:
        """Whether it is known well enough to be quoted as a value: to a tenth."""
        return self.error is not None and self.error <= WORTH_A_VALUE

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

    def __str__(self) -> str:
        if self.converged:
            return f"{self.value:.4g}"
        if self.known:
            return f"{self.value:.3g} (to {self.error:.0e})"
        if self.upper is None:
            return f">= {self.lower:.2g}"
        return f"<= {self.upper:.2g}" if self.lower == 0 else f"{self.lower:.2g} to {self.upper:.2g}"


@dataclass(frozen=True)
class Spectrum:
    """The ends of an operator's spectrum of singular values. Never inf, never NaN.

    Attributes:
        name: the operator's.
        shape: rows and columns.
        dtype: of its products, `"float32"` or `"float64"`.
        sigma_max, sigma_min: the largest singular value and the min(shape)-th.
        rank: how many singular values exceed `rank_tolerance * sigma_max`; None where they were not all found.
        rank_tolerance: see there.
        tolerance: the relative error that `converged` promises.
        failure: the probability, over the seed, that a bound of an iterative method misses; 0 for a dense one.
        seed: of the start vector.
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

    @property
    def kappa(self) -> Estimate:
        """kappa(K) = sigma_max / sigma_min, a value where both ends are known and a lower bound where not.

        A singular operator has a lower bound that says what the precision can tell, and a `rank` below min(shape).
        """
        return self._kappa(1)

    @property
    def kappa_gram(self) -> Estimate:
        """kappa(K K^T) = kappa(K)^2, the number of the paper's Tables 5 and 6, without forming the Gram matrix."""
        return self._kappa(2)

    @property
    def converged(self) -> bool:
        """Whether both ends are."""
        return self.sigma_max.converged and self.sigma_min.converged

    @property
    def method(self) -> Method:
        """How sigma_min, the harder end, was found."""
        return self.sigma_min.method

    def _kappa(self, power: int) -> Estimate:
        high, low = self.sigma_max, self.sigma_min
        # Nothing is known of a zero matrix's kappa but that no kappa is below 1.
        lower = max(high.lower / low.upper, 1.0) if low.upper else 1.0
        upper = high.upper / low.lower if high.upper is not None and low.lower > 0 else None
        value = max(high.value / low.value, 1.0) if upper is not None and low.value > 0 else lower
        if upper is not None and max(upper - value, value - lower) > WORTH_A_VALUE * value:
            value = lower
        upper = None if upper is None or not math.isfinite(upper**power) else upper**power
        iterations = high.iterations if high.method == low.method else high.iterations + low.iterations
        return Estimate(value**power, lower**power, upper, self.converged, low.method, iterations)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; kappa and kappa_gram are in it."""
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
