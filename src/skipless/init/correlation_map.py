"""C-maps: how alike two tokens are after an MLP, from how alike they were before it, in the limit of great width."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from skipless.display import Record, Table
from skipless.display.axes import colour_of, legend, level, ruled
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Activation = Callable[[Tensor], Tensor]
Rho = TypeVar("Rho", float, Tensor)

_DEGREES = 128  # Hermite polynomials; what lies beyond is 1e-4 of the variance of ReLU, and nothing of GELU's
_REACH, _STEP = 14.0, 1 / 256  # grid of the integrals; the steps resolve the last polynomial, 0.28 a wave
_ODD_TOLERANCE = 1e-6
_SHOWN = 9  # degrees in the table


@dataclass(frozen=True, repr=False)
class CorrelationMap(Record):
    """The C-map of a layer: the cosine of two tokens after it, as a function C of their cosine before it.

    For an elementwise f between random maps, with u and v normal of correlation rho,

        C(rho) = E f(u) f(v) / E f(u)^2 = sum_k w_k rho^k,    w_k = a_k^2 / sum_j a_j^2,

    where a_k are the coefficients of f in normalised Hermite polynomials (Daniely, Frostig and Singer 2016; C-maps:
    Poole et al. 2016, Martens et al. 2021). w_0 is what all tokens get in common, and w_1 is what the layer keeps of
    them as a linear map does.

    Attributes:
        weights: w_0, w_1, ...; none is negative, and their sum is 1.

    Example:
        >>> gelu = CorrelationMap.of(torch.nn.GELU())
        >>> round(gelu(0.0), 3), round(gelu.linearity, 3), round(gelu.slope, 2)
        (0.187, 0.588, 1.07)
    """

    weights: tuple[float, ...]

    @classmethod
    def of(cls, activation: Activation) -> "CorrelationMap":
        """The C-map of one elementwise activation between two random maps.

        Raises:
            InputError: if the activation is 0, or not finite.
        """
        squares = hermite_coefficients(activation).square()
        total = gaussian_mean(activation, power=2)
        if not (math.isfinite(total) and total > 0):
            raise InputError(f"{activation} of a normal number has the mean square {total}: it has no C-map")
        squares[-1] += max(total - squares.sum().item(), 0.0)  # degrees beyond the last, so that C(1) = 1
        return cls(tuple((squares / squares.sum()).tolist()))

    def __call__(self, rho: Rho) -> Rho:
        """C(rho) of a number, or of every entry of a tensor; by Horner's rule."""
        value = rho * 0.0
        for weight in reversed(self.weights):
            value = value * rho + weight
        return value

    @property
    def linearity(self) -> float:
        """w_1: the linear share of the output's mean square."""
        return self.weights[1]

    @property
    def slope(self) -> float:
        """C'(1) = sum_k k w_k; above 1, tokens that are nearly the same part from layer to layer.

        Of an activation with a kink it is 1 to 2 % too small: degrees above 127 count as 127.
        """
        return sum(degree * weight for degree, weight in enumerate(self.weights))

    def with_linearity(self, linearity: float) -> "CorrelationMap":
        """The map whose linear share is another, and whose other shares keep their proportions.

        Raises:
            InputError: if it is not between 0 and 1, or the map is linear and has no other shares.
        """
        check_linearity(linearity)
        others = self.weights[0] + sum(self.weights[2:])
        if others < _ODD_TOLERANCE:
            if linearity == 1:
                return self
            raise InputError(f"a linear map has no other share than its linear one: it cannot be {linearity}; give 1")
        weights = [weight * ((1 - linearity) / others) for weight in self.weights]
        weights[1] = linearity
        return CorrelationMap(tuple(weights))

    def gated(self, constant: float = 1.0) -> "CorrelationMap":
        """The map of this activation times another linear map's output, as in a gated MLP: rho C(rho).

        Args:
            constant: by how much the gates' mean counts for more than what varies, where the output map is tied to that
                other map.
        """
        first, *others = self.weights
        total = constant * first + sum(others)
        return CorrelationMap((0.0, constant * first / total, *(weight / total for weight in others)))

    def after(self, layers: int, rho: float = 0.0) -> float:
        """The cosine after several such layers."""
        for _ in range(layers):
            rho = self(rho)
        return rho

    def _summary(self) -> str:
        return f"C(0) {self(0.0):.3f}, linear share {self.linearity:.3f}, slope at 1 {self.slope:.2f}"

    def tables(self) -> tuple[Table, ...]:
        """The first weights, and the sum of the others."""
        shown = [(f"w_{degree}", f"{weight:.4f}") for degree, weight in enumerate(self.weights[:_SHOWN])]
        shown.append(("later ones", f"{sum(self.weights[_SHOWN:]):.4f}"))
        return (Table(("weight", "value"), shown, self._summary(), align="lr"),)

    def _draw(self, axes: "Axes") -> None:
        cosines = [step / 100 for step in range(101)]
        axes.plot(cosines, [self(rho) for rho in cosines], color=colour_of(0), linewidth=1.4, label="C")
        axes.plot([0, 1], [0, 1], color=colour_of(1), linewidth=1, linestyle=(0, (4, 3)), label="kept as it is")
        level(axes, 1.0, "the same token")
        axes.set_xlabel("cosine before")
        axes.set_ylabel("cosine after")
        ruled(axes)
        legend(axes)


def check_linearity(linearity: float) -> None:
    """Refuse a linear share outside 0 to 1.

    Raises:
        InputError: if it is.
    """
    if not 0 <= linearity <= 1:
        raise InputError(f"mlp_linearity={linearity} is a share: give a number from 0 to 1 (1: a rotation)")


def solve_linearity(activation: Activation, layers: int, cosine: float) -> float:
    """The least linear share with which two orthogonal tokens have at most this cosine after so many MLPs.

    It is the activation's own share where that suffices, and comes near 1 as layers grow in number.

    Args:
        activation: of the MLPs.
        layers: number of MLPs.
        cosine: between 0 and 1.

    Raises:
        InputError: for values out of range.

    Example:
        >>> [round(solve_linearity(torch.nn.GELU(), depth, 0.5), 3) for depth in (1, 12, 36, 144)]
        [0.588, 0.804, 0.931, 0.983]
    """
    if layers < 1 or not 0 < cosine < 1:
        raise InputError(f"layers={layers}, cosine={cosine}: give at least one layer, and a cosine between 0 and 1")
    own = CorrelationMap.of(activation)
    low, high = own.linearity, 1.0
    if own.after(layers) <= cosine:
        return low
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if own.with_linearity(middle).after(layers) > cosine else (low, middle)
    return high


def odd_slope(activation: Activation) -> float:
    """k, where f(x) - f(-x) = k x: 1 for GELU, SiLU, ReLU and their approximations.

    Raises:
        InputError: if the difference is not linear, or 0.

    Example:
        >>> odd_slope(torch.nn.SiLU()), odd_slope(torch.nn.LeakyReLU(0.5))
        (1.0, 1.5)
    """
    x, _ = _grid()
    x = x[x > 0]
    slopes = (_values(activation, x) - _values(activation, -x)) / x
    slope = slopes.mean().item()
    if not (slopes - slope).abs().max() <= _ODD_TOLERANCE * max(1.0, abs(slope)) or abs(slope) < _ODD_TOLERANCE:
        raise InputError(
            f"{activation} has no linear odd part: f(x) - f(-x) is no multiple of x, as it is for GELU, SiLU and ReLU; "
            "choose one of these, or mlp='orthogonal'"
        )
    return round(slope, 12)  # what is beyond is rounding


def even_part(activation: Activation) -> Activation:
    """(f(x) + f(-x)) / 2."""
    return lambda x: (_values(activation, x) + _values(activation, -x)) / 2


def gaussian_mean(function: Activation, power: int = 1) -> float:
    """The mean of a power of a function of one normal number, by the trapezoid rule."""
    u, density = _grid()
    return (_values(function, u) ** power * density).sum().item()


@torch.no_grad()
def _values(function: Activation, x: Float64[Tensor, " g"]) -> Float64[Tensor, " g"]:
    """The function's values; one that works in place gets numbers of its own, and one with parameters, their dtype."""
    if isinstance(function, nn.Module) and next(function.parameters(), None) is not None:
        function = copy.deepcopy(function).to("cpu", torch.float64)
    return function(x.clone())


def hermite_coefficients(activation: Activation, count: int = _DEGREES) -> Float64[Tensor, " k"]:
    """Coefficients of f in the polynomials h_k that are orthonormal under N(0, 1).

    Computed with Hermite functions h_k sqrt(density), whose recursion neither overflows nor loses digits.
    """
    u, density = _grid()
    root = density.sqrt()
    previous, current = torch.zeros_like(u), root
    values = _values(activation, u) * root
    found = []
    for degree in range(count):
        found.append((values * current).sum())
        following = (u * current - math.sqrt(degree) * previous) / math.sqrt(degree + 1)
        previous, current = current, following
    return torch.stack(found)


@lru_cache(maxsize=1)
def _grid() -> tuple[Float64[Tensor, " g"], Float64[Tensor, " g"]]:
    """Points, and N(0, 1)'s density times the step; the points are multiples of the step, so that 0 is one of them."""
    last = round(_REACH / _STEP)
    u = torch.arange(-last, last + 1, dtype=torch.float64, device="cpu") * _STEP  # whatever `torch.device` is in force
    return u, torch.exp(-u.square() / 2) * (_STEP / math.sqrt(2 * math.pi))
