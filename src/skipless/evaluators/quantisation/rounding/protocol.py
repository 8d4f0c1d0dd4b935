"""How weights and activations are quantised: bits, scales, and ranges that calibration has found."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.quantisation.rounding.grid import FEWEST, MOST, Grid, check_bits, grid_of, grid_of_range

PRECISIONS = ("W8A8", "W8A6", "W6A6", "W4A8", "W4A4")
"""Bits of weights and activations that a study of few bits looks at."""

WeightsPer = Literal["channel", "tensor"]
ActivationsPer = Literal["token", "tensor"]


@dataclass(frozen=True)
class Quantisation:
    """How the linear maps of a model are quantised.

    Attributes:
        weights: bits of weights; None leaves them as they are.
        activations: bits of what enters a linear map; None leaves it as it is.
        weights_per: what of a weight has a scale of its own: each output channel, or the whole.
        activations_per: what of an activation has one: each token, or the whole tensor.
        symmetric_weights, symmetric_activations: whether grids are symmetric about 0.
        static: whether ranges of activations are those that calibration has found, or each batch's own.
        ends: whether patch or token embedding and head are quantised, too.

    Example:
        >>> Quantisation(8, 6).name, precision("W4A8"), precision("W8")
        ('W8A6', (4, 8), (8, None))
    """

    weights: int | None = 8
    activations: int | None = 8
    weights_per: WeightsPer = "channel"
    activations_per: ActivationsPer = "token"
    symmetric_weights: bool = True
    symmetric_activations: bool = True
    static: bool = False
    ends: bool = False

    def __post_init__(self) -> None:
        for name in ("weights", "activations"):
            if getattr(self, name) is not None:
                check_bits(name, getattr(self, name))
        if self.weights is None and self.activations is None:
            raise InputError("weights=None and activations=None quantise nothing: give bits for one of them")
        for name, given, known in (
            ("weights_per", self.weights_per, ("channel", "tensor")),
            ("activations_per", self.activations_per, ("token", "tensor")),
        ):
            if given not in known:
                raise InputError(f"{name}={given!r}: give {' or '.join(map(repr, known))}")
        if self.static and self.activations is None:
            raise InputError("calibration finds ranges of activations, which activations=None does not quantise")
        if self.static and self.activations_per == "token":
            raise InputError(
                "calibration finds one range for all tokens: give activations_per='tensor', or leave calibration out"
            )

    @property
    def name(self) -> str:
        """`W8A8`; what is not quantised is left out."""
        parts = ((letter, bits) for letter, bits in (("W", self.weights), ("A", self.activations)) if bits)
        return "".join(f"{letter}{bits}" for letter, bits in parts)


def precision(name: str) -> tuple[int | None, int | None]:
    """Bits of weights and of activations by their usual name, `W8A6`; None for what is not quantised.

    Raises:
        InputError: if it is no such name.
    """
    found = re.fullmatch(r"(?:W(\d+))?(?:A(\d+))?", name.upper())
    bits = [None if one is None else int(one) for one in found.groups()] if found else []
    if not any(bits) or not all(one is None or FEWEST <= one <= MOST for one in bits):
        raise InputError(f"{name!r} is no precision: give one as {', '.join(PRECISIONS)}; {FEWEST} to {MOST} bits")
    return bits[0], bits[1]


@dataclass(frozen=True)
class Rule:
    """How one module quantises.

    Attributes:
        how: as the whole model.
        range: least and largest number of its input that calibration has found; None takes each batch's own.
        inner: the same of what enters the second map of a module that has two.
        watch: what is told of inputs while calibration runs; nothing is rounded then.
    """

    how: Quantisation
    range: tuple[float, float] | None = None
    inner: tuple[float, float] | None = None
    watch: Callable[[Tensor, bool], None] | None = None

    def weight_grid(self, rows: Tensor) -> Grid:
        """The grid of a weight whose rows are output channels."""
        assert self.how.weights is not None
        per = "token" if self.how.weights_per == "channel" else "tensor"
        return grid_of(rows, self.how.weights, per, symmetric=self.how.symmetric_weights)

    def input_grid(self, x: Tensor, *, inner: bool = False) -> Grid:
        """The grid of an activation."""
        assert self.how.activations is not None
        kept = self.inner if inner else self.range
        bits, symmetric = self.how.activations, self.how.symmetric_activations
        if kept is None:
            return grid_of(x, bits, self.how.activations_per, symmetric=symmetric)
        low, high = (torch.full((), one, dtype=x.dtype, device=x.device) for one in kept)
        return grid_of_range(low, high, bits, symmetric=symmetric)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """What rounding gives, with the gradient of what was rounded; the value is that of rounding to the bit."""
    return rounded if not (torch.is_grad_enabled() and x.requires_grad) else rounded.detach() + (x - x.detach())
