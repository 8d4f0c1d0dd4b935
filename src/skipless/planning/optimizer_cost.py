"""Memory and FLOPs of an optimizer, computed from its parameter groups and, for SOAP, from its own layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from skipless.optim import SOAP, MuonWithAdamW
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.stack import state_dtype
from skipless.optim.soap.state_sharding import assign_greedily, step_macs

# Bytes per parameter that Adam's fp32 update reads (weight, gradient, two moments) and writes (all but the gradient).
MOVED = 28
# Bytes per parameter that torch's Muon moves, one operation after another: the weight shrinks (8) and is updated (10),
# momentum and gradient are mixed (12), mixed again as Nesterov has it (12), cast to bf16 (6) and normalised (6).
MUON_MOVED = 54


@dataclass(frozen=True)
class Cost:
    """Cost of the optimizer for one parameter, or for several.

    Attributes:
        state_bytes: bytes of state.
        products: FLOPs of matrix products in every step.
        refresh_products: FLOPs of matrix products that a refresh adds.
        factorisation: FLOPs of QR in a refresh, by Householder: 8/3 s^3 for a side of s, with Q formed explicitly.
        moved_bytes: memory traffic of the element-wise part of a step, in bytes.
        balance: load that sharding over ranks balances.
        whole_products: FLOPs of bf16 products in every step that every rank computes, also of what is sharded.
        gathered_bytes: bytes that a step gathers of what is sharded over all ranks.
    """

    state_bytes: float = 0
    products: float = 0.0
    refresh_products: float = 0.0
    factorisation: float = 0.0
    moved_bytes: float = 0.0
    balance: float = 0.0
    whole_products: float = 0.0
    gathered_bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def divided(self, ranks: int) -> "Cost":
        """Return the cost divided equally over ranks, except for what each of them does whole."""
        shared = Cost(*(value / ranks for value in vars(self).values()))
        return replace(shared, whole_products=self.whole_products, gathered_bytes=self.gathered_bytes)


def parameter_costs(optimizer: Optimizer) -> list[Cost]:
    """Return the cost of each parameter, in the order of the groups; SOAP's `step` counters are not tensors.

    Example:
        >>> import torch
        >>> optimizer = SOAP([torch.nn.Parameter(torch.eye(8))])
        >>> [cost] = parameter_costs(optimizer)
        >>> cost.state_bytes, cost.products  # two moments, two factors, two bases; six products of 8 x 8
        (1536, 6144.0)
    """
    soap, muon = isinstance(optimizer, SOAP), isinstance(optimizer, MuonWithAdamW)

    def cost(param: Tensor, group: Mapping[str, Any]) -> Cost:
        if soap:
            return _soap_cost(param, group)
        return _muon_cost(param, group) if muon and group["use_muon"] else _adamw_cost(param)

    return [cost(param, group) for group in optimizer.param_groups for param in group["params"]]


def total(costs: Sequence[Cost]) -> Cost:
    """Return the sum of costs."""
    return sum(costs, start=Cost())


def shard_costs(costs: Sequence[Cost], ranks: int) -> list[Cost]:
    """Return the cost of each rank if SOAP is sharded, by the optimizer's own assignment."""
    held = [Cost()] * ranks
    for cost, rank in zip(costs, assign_greedily([cost.balance for cost in costs], [0.0] * ranks), strict=True):
        held[rank] = held[rank] + cost
    return held


def _adamw_cost(param: Tensor) -> Cost:
    """Return AdamW's cost: two moments in the parameter's dtype, and a float32 step counter per parameter."""
    return Cost(2 * param.numel() * param.element_size() + 4, moved_bytes=MOVED * param.numel(), balance=param.numel())


def _muon_cost(param: Tensor, group: Mapping[str, Any]) -> Cost:
    """Return Muon's cost: one momentum, and Newton-Schulz for each stacked matrix, whose shorter side is a.

    An iteration squares to a x a, squares that, and multiplies by the a x b matrix: 2 a^2 b, 2 a^3 and 2 a^2 b FLOPs.
    Where parameters are sharded, a step gathers weight, gradient and momentum.
    """
    rows, columns = param.shape[0] // group["split"], param.shape[1]
    a, b = sorted((rows, columns))
    stored = param.numel() * param.element_size()
    return Cost(
        state_bytes=stored,
        moved_bytes=MUON_MOVED * param.numel(),
        balance=param.numel(),
        whole_products=float(group["split"] * group["ns_steps"] * (4 * a * a * b + 2 * a**3)),
        gathered_bytes=3 * stored,
    )


def _soap_cost(param: Tensor, group: Mapping[str, Any]) -> Cost:
    """Return SOAP's cost: two moments, and an s x s factor and basis for each active side s of each matrix.

    A step rotates the gradient into the bases and the update back, and updates the factors: three products of 2 s FLOPs
    per entry and side. A refresh rotates the momentum back and forth, multiplies basis and factor, and takes a QR.
    """
    layout = Layout.of(param, group)
    size = state_dtype(param).itemsize
    sides = [dim for dim, preconditioned in zip(layout.dims, layout.preconditioned, strict=True) if preconditioned]
    entries = layout.split * prod(layout.dims)
    cubes = layout.split * sum(side**3 for side in sides)
    turn = 2.0 * entries * sum(sides)
    return Cost(
        state_bytes=size * (2 * entries + 2 * layout.split * sum(side**2 for side in sides)),
        products=3 * turn,
        refresh_products=2 * turn + 2.0 * cubes,
        factorisation=8 / 3 * cubes,
        moved_bytes=MOVED * param.numel(),
        balance=step_macs(layout, group["precondition_frequency"]),
    )
