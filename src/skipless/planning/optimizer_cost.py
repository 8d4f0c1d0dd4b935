"""What an optimizer keeps and computes, read off the optimizer itself: its groups, and SOAP's own layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from skipless.optim import SOAP
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.sharding import share_out, work
from skipless.optim.soap.stack import state_dtype

# Bytes of fp32 numbers that Adam's update reads (weight, gradient, two moments) and writes (all but the gradient).
MOVED = 28


@dataclass(frozen=True)
class Cost:
    """Of one parameter, or of several.

    Attributes:
        state_bytes: kept between steps.
        products: FLOPs of matrix products in every step.
        refresh_products: FLOPs of matrix products that a refresh adds.
        factorisation: FLOPs of QR in a refresh, by Householder: 8/3 s^3 for a side of s with its Q made explicit.
        moved_bytes: between the chip and its memory, for the element-wise part of a step.
        balance: what sharing out over ranks balances.
    """

    state_bytes: float = 0
    products: float = 0.0
    refresh_products: float = 0.0
    factorisation: float = 0.0
    moved_bytes: float = 0.0
    balance: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def divided(self, ranks: int) -> "Cost":
        """An equal share of it."""
        return Cost(*(value / ranks for value in vars(self).values()))


def parameter_costs(optimizer: Optimizer) -> list[Cost]:
    """The cost of each parameter, in the order of the groups; SOAP's `step` counters are no tensors and cost nothing.

    Example:
        >>> import torch
        >>> optimizer = SOAP([torch.nn.Parameter(torch.eye(8))])
        >>> [cost] = parameter_costs(optimizer)
        >>> cost.state_bytes, cost.products  # two moments, two factors, two bases; six products of 8 x 8
        (1536, 6144.0)
    """
    soap = isinstance(optimizer, SOAP)
    return [
        _soap_cost(param, group) if soap else _adamw_cost(param)
        for group in optimizer.param_groups
        for param in group["params"]
    ]


def total(costs: Sequence[Cost]) -> Cost:
    """The sum."""
    return sum(costs, start=Cost())


def shard_costs(costs: Sequence[Cost], ranks: int) -> list[Cost]:
    """What each rank keeps and computes where SOAP is shared out, by the optimizer's own rule."""
    held = [Cost()] * ranks
    for cost, rank in zip(costs, share_out([cost.balance for cost in costs], [0.0] * ranks), strict=True):
        held[rank] = held[rank] + cost
    return held


def _adamw_cost(param: Tensor) -> Cost:
    """Two moments of the parameter's dtype, and torch's step counter, a float32 tensor for each parameter."""
    return Cost(2 * param.numel() * param.element_size() + 4, moved_bytes=MOVED * param.numel(), balance=param.numel())


def _soap_cost(param: Tensor, group: Mapping[str, Any]) -> Cost:
    """Two moments; for each active side s a factor and a basis, s x s, of each of the parameter's matrices.

    A step rotates the gradient into the bases and the update out of them, and adds to the factors: three products of
    2 s per entry and side. A refresh turns the momentum back and forth, multiplies basis and factor, and factorises.
    """
    layout = Layout.of(param, group)
    size = state_dtype(param).itemsize
    sides = [side for side, active in zip(layout.sides, layout.active, strict=True) if active]
    entries = layout.split * prod(layout.sides)
    cubes = layout.split * sum(side**3 for side in sides)
    turn = 2.0 * entries * sum(sides)
    return Cost(
        state_bytes=size * (2 * entries + 2 * layout.split * sum(side**2 for side in sides)),
        products=3 * turn,
        refresh_products=2 * turn + 2.0 * cubes,
        factorisation=8 / 3 * cubes,
        moved_bytes=MOVED * param.numel(),
        balance=work(layout, group["precondition_frequency"]),
    )
