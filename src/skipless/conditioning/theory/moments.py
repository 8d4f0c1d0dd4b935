"""Eqs. 14 to 20: mean and variance of the logits of Gaussian tokens, as printed and as corrected."""

from dataclasses import dataclass
from typing import Literal, get_args

from skipless.display import Record
from skipless.errors import InputError

Reading = Literal["corrected", "printed"]


@dataclass(frozen=True, repr=False)
class LogitMoments(Record):
    """Mean and variance of a logit matrix's entries, on the diagonal and off it (Eqs. 14 to 19)."""

    diagonal_mean: float
    diagonal_variance: float
    off_diagonal_mean: float
    off_diagonal_variance: float
    reading: Reading

    def _summary(self) -> str:
        on, off = (self.diagonal_mean, self.diagonal_variance), (self.off_diagonal_mean, self.off_diagonal_variance)
        return f"mean and variance {on[0]:g}, {on[1]:g} on the diagonal, {off[0]:g}, {off[1]:g} off it, {self.reading}"


@dataclass(frozen=True)
class GapMoments(Record):
    """Mean and variance of C_ii - C_ij, the gap between a row's diagonal logit and another one (Eq. 20)."""

    mean: float
    variance: float
    reading: Reading


def logit_moments(
    dim: int, alpha: float, beta: float, *, logit_scale: float = 1.0, reading: Reading = "corrected"
) -> LogitMoments:
    """The moments of C = s (alpha X Z X^T + beta X X^T), tokens X ~ N(0, I) and Z_ij ~ N(0, 1/d) (Eqs. 14 to 19).

    `alpha = 0, beta = 1` is A = X X^T (Eqs. 14 and 15), `alpha = 1, beta = 0` is B = X Z X^T (Eqs. 16 and 17). With
    x, y two rows of X:

        A_ii = |x|^2:      mean d, variance 2 d                             (Eq. 14)
        A_ij = x y^T:      mean 0, variance d                               (Eq. 15)
        B_ii = x Z x^T:    given x, N(0, |x|^4 / d); E|x|^4 = d^2 + 2 d:    variance d + 2   (Eq. 16, exact)
        B_ij = x Z y^T:    given x and y, N(0, |x|^2 |y|^2 / d):            variance d

    For the last variance the paper prints 1 (Eq. 17), and therefore alpha^2 + beta^2 d instead of (alpha^2 + beta^2) d
    in Eq. 19. A and B are uncorrelated, because Z has mean 0 given X, so their variances add up in C (Eqs. 18 and 19).
    The paper's conclusion still holds: the diagonal's mean beta d outgrows the standard deviation, which is of order
    sqrt(d).

    Args:
        dim: d.
        alpha, beta: coefficients of W_Q W_K^T = alpha Z + beta I (Eq. 11).
        logit_scale: s; the paper has none, libraries use d_h^-0.5.
        reading: `"corrected"`, or `"printed"` for Eqs. 17 and 19 as they stand.

    Raises:
        InputError: if `dim` is not positive or `reading` unknown.

    Example:
        >>> logit_moments(384, 1.0, 0.0).off_diagonal_variance
        384.0
        >>> logit_moments(384, 1.0, 0.0, reading="printed").off_diagonal_variance
        1.0
    """
    _check(dim, reading)
    spread = dim if reading == "corrected" else 1
    return LogitMoments(
        diagonal_mean=logit_scale * beta * dim,
        diagonal_variance=logit_scale**2 * (alpha**2 * (dim + 2) + 2 * beta**2 * dim),
        off_diagonal_mean=0.0,
        off_diagonal_variance=logit_scale**2 * float(alpha**2 * spread + beta**2 * dim),
        reading=reading,
    )


def gap_moments(
    dim: int, alpha: float, beta: float, *, logit_scale: float = 1.0, reading: Reading = "corrected"
) -> GapMoments:
    """The moments of gamma = C_ii - C_ij, the margin of Proposition 1 before the maximum over j (Eq. 20).

    With x, y two rows of X, gamma = s (alpha x Z (x - y)^T + beta (|x|^2 - x y^T)), uncorrelated terms of variance

        E |x|^2 |x - y|^2 / d = E |x|^2 (|x|^2 + |y|^2) / d = (d^2 + 2 d + d^2) / d = 2 d + 2
        Var |x|^2 + Var x y^T = 3 d

    For the first the paper prints alpha^2 (d + 3), following Eq. 17. It also calls gamma normal, but its terms are
    products of Gaussians, which have heavier tails.

    Args:
        dim, alpha, beta, logit_scale: as in `logit_moments`.
        reading: `"corrected"`, or `"printed"` for Eq. 20 as it stands.

    Raises:
        InputError: if `dim` is not positive or `reading` unknown.

    Example:
        >>> gap_moments(384, 1.0, 1.0)
        GapMoments(mean=384.0, variance=1922.0, reading='corrected')
    """
    _check(dim, reading)
    from_z = 2 * dim + 2 if reading == "corrected" else dim + 3
    variance = logit_scale**2 * (alpha**2 * from_z + 3 * beta**2 * dim)
    return GapMoments(logit_scale * beta * dim, variance, reading)


def _check(dim: int, reading: str) -> None:
    if dim < 1:
        raise InputError(f"dim={dim}: the token width is at least 1")
    if reading not in get_args(Reading):
        raise InputError(f"reading={reading!r} is not one of {', '.join(map(repr, get_args(Reading)))}")
