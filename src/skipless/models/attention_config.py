"""AttentionConfig: what stands for the softmax in a model that is built by its name, as a frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_args

from skipless.choices import AttentionName, PolynomialScale, QueryStart
from skipless.errors import InputError
from skipless.frozen import added

if TYPE_CHECKING:
    from skipless.nn import AttentionCore
else:  # a recipe is described without torch, which is imported when a core is made
    AttentionCore = Any

RHO = 0.8
"""Cosine of all tokens after the last block of U-SPA where none is given: ours, not the source's."""

_OWNER: Mapping[str, AttentionName] = {
    "power": "polynomial",
    "scale": "polynomial",
    "alpha": "orthogonal",
    "gamma": "e-spa",
    "rho": "u-spa",
}
_FROM_ZERO = ("shaped", "e-spa", "u-spa")  # whose sources start with W_Q = 0


@dataclass(frozen=True)
class AttentionConfig:
    """What stands for the softmax of every block (`replace_attention_`), and how its queries start.

    What is None is as the layer in `skipless.nn` has it.

    Attributes:
        core: softmax, polynomial, shaped, v-skipinit, e-spa, u-spa or orthogonal attention.
        power: of polynomial attention, 1 to 3.
        scale: of polynomial attention: a number, visible, learned, or solved from the logits by which the model starts.
        alpha: of orthogonal attention, what its gains start as; 0 is the identity.
        gamma: of E-SPA, how fast the covariance of tokens falls with distance after the last block.
        rho: of U-SPA, the cosine of all tokens after the last block. 1 - rho falls by one factor a block, which is
            ours: the source's rule is not public.
        queries: zero starts with W_Q = 0, as the sources of shaped attention, E-SPA and U-SPA do and as is the default
            there; kept leaves W_Q as the initialisation has it.

    Raises:
        InputError: for a core that does not exist, and for a value that is another core's or out of range.

    Example:
        >>> AttentionConfig("polynomial", power=2).core_of(tokens=17, depth=12)
        PolynomialAttention(power=2, scale='visible')
    """

    core: AttentionName = "softmax"
    power: int | None = added(None)
    scale: PolynomialScale | float | None = added(None)
    alpha: float | None = added(None)
    gamma: float | None = added(None)
    rho: float | None = added(None)
    queries: QueryStart | None = added(None)

    def __post_init__(self) -> None:
        if self.core not in get_args(AttentionName):
            raise InputError(f"attention {self.core!r}: there is {', '.join(get_args(AttentionName))}")
        for name, owner in _OWNER.items():
            value = getattr(self, name)
            if value is not None and self.core != owner:
                raise InputError(f"attention_{name} {value} is of {owner} attention, not of {self.core}: leave it out")
        if self.power not in (None, 1, 2, 3):
            raise InputError(f"attention_power {self.power}: give 1, 2 or 3")
        if self.scale is not None and not _is_scale(self.scale):
            names = ", ".join(get_args(PolynomialScale))
            raise InputError(f"attention_scale {self.scale!r}: give a number above 0, or one of {names}")
        if self.alpha is not None and not math.isfinite(self.alpha):
            raise InputError(f"attention_alpha {self.alpha}: give a number")
        if self.gamma is not None and not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"attention_gamma {self.gamma}: give a number above 0")
        if self.rho is not None and not 0 <= self.rho < 1:
            raise InputError(f"attention_rho {self.rho}: give a number from 0, below 1")
        if self.queries not in (None, *get_args(QueryStart)):
            raise InputError(f"attention_queries {self.queries!r}: give one of {', '.join(get_args(QueryStart))}")

    @property
    def is_softmax(self) -> bool:
        """Whether nothing is put in."""
        return self.core == "softmax"

    @property
    def queries_from_zero(self) -> bool:
        """Whether a model with it starts with W_Q = 0."""
        return self.queries == "zero" or (self.queries is None and self.core in _FROM_ZERO)

    @property
    def solved(self) -> bool:
        """Whether its scale is solved from the logits."""
        return self.scale == "solved"

    @property
    def title(self) -> str:
        """Its name with what is set in it.

        Example:
            >>> AttentionConfig("polynomial", power=2, scale="solved").title
            'polynomial, power 2, scale solved'
        """
        given = {one.name: getattr(self, one.name) for one in fields(self)[1:]}
        return ", ".join([self.core, *(f"{name} {value}" for name, value in given.items() if value is not None)])

    def core_of(self, *, tokens: int, depth: int, causal: bool = False) -> AttentionCore:
        """The core for `replace_attention_`, for a model of so many tokens and blocks.

        Raises:
            InputError: for softmax, which is no core.
        """
        from skipless import nn

        given = {name: getattr(self, name) for name in ("power", "scale", "alpha", "gamma")}
        own = {name: value for name, value in given.items() if value is not None}
        if self.core == "polynomial":
            return nn.PolynomialAttention(**own)
        if self.core == "e-spa":
            return nn.ExponentialSPA(tokens, **own, causal=causal)
        if self.core == "u-spa":
            return nn.UniformSPA(tokens, rising_cosines(RHO if self.rho is None else self.rho, depth), causal=causal)
        if self.core == "orthogonal":
            return nn.OrthogonalAttention(**own)
        if self.core == "shaped":
            return nn.ShapedAttention()
        if self.core == "v-skipinit":
            return nn.ValueSkipInit()
        raise InputError("softmax is the library's own attention: there is no core to put in")


def rising_cosines(last: float, depth: int) -> tuple[float, ...]:
    """rho_l of U-SPA, with 1 - rho_l = (1 - last)^(l / depth): every block takes the same share. The rule is ours.

    Example:
        >>> [round(rho, 3) for rho in rising_cosines(0.75, 2)]
        [0.5, 0.75]
    """
    return tuple(1 - (1 - last) ** (block / depth) for block in range(1, depth + 1))


def _is_scale(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (math.isfinite(value) and value > 0) if number else value in get_args(PolynomialScale)
