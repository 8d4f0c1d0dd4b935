"""Optimizer state sharding (ZeRO stage 1) for SOAP: which rank keeps a parameter's state, and what a step sends."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from operator import is_
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skipless.errors import InputError
from skipless.optim.soap.collectives import (
    all_gather_into,
    all_gather_owned_,
    all_to_all,
    is_dtensor,
    shard_placement,
    shard_shapes,
    world_group,
)
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.state import empty_state, state_dtype, state_shapes
from skipless.optim.soap.validate import check_unique

# What a refresh costs for a dimension of s, in units of the s^3 multiply-adds of a large product: the product with the
# factor, the QR and what belongs to them (measured on one CPU core).
_REFRESH_COST = 4


def step_macs(layout: Layout, frequency: int) -> float:
    """Estimate the multiply-adds of one parameter's average step, with a refresh every `frequency` steps."""
    numel = prod(layout.dims)
    dims = [dim for dim, preconditioned in zip(layout.dims, layout.preconditioned, strict=True) if preconditioned]
    products = 3 * numel * sum(dims) + _REFRESH_COST * sum(dim**3 for dim in dims) / frequency
    return layout.split * (numel + products)


def assign_greedily(costs: Sequence[float], loads: list[float]) -> list[int]:
    """Assign items to ranks: the most expensive item first, each to the rank with the smallest load.

    Args:
        costs: the cost of each item.
        loads: the load that every rank has already; updated in place.

    Returns:
        A rank for each item.

    Example:
        >>> assign_greedily([1.0, 5.0, 2.0, 3.0], [0.0, 0.0])
        [0, 0, 1, 1]
    """
    owners = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        owners[index] = min(range(len(loads)), key=lambda rank: (loads[rank], rank))
        loads[owners[index]] += costs[index]
    return owners


class ShardGroup:
    """The ranks of one process group, and the parameters whose state they shard.

    Attributes:
        owners: the rank, within the group, that keeps a parameter's state.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.world_size = group, dist.get_rank(group), dist.get_world_size(group)
        self.owners: dict[Tensor, int] = {}
        self._verified = False

    def assign(self, costs: Mapping[Tensor, float]) -> None:
        """Give an owner to these parameters, and to no others; a parameter that has one keeps it."""
        old = {param: owner for param, owner in self.owners.items() if param in costs}
        loads = [sum(costs[param] for param, owner in old.items() if owner == rank) for rank in range(self.world_size)]
        new = [param for param in costs if param not in old]
        assigned = dict(zip(new, assign_greedily([costs[param] for param in new], loads), strict=True))
        self.owners = {param: old[param] if param in old else assigned[param] for param in costs}
        self._verified = False

    def verify_params(self) -> None:
        """Check, once, that all ranks hold the same parameters with the same owners.

        Raises:
            InputError: on every rank, if they do not.
        """
        if self._verified:
            return
        described = repr([(tuple(param.shape), str(param.dtype), owner) for param, owner in self.owners.items()])
        digest = int.from_bytes(hashlib.sha256(described.encode()).digest()[:7], "big")
        local = torch.tensor([digest], device=next(iter(self.owners)).device)
        gathered = local.new_empty(self.world_size)
        all_gather_into(gathered, local, self.group)
        if different := (gathered != gathered[0]).nonzero().flatten().tolist():
            raise InputError(
                f"SOAP: ranks 0 and {different[0]} hold different parameters; build the same model and the same "
                "groups, in the same order, on every rank"
            )
        self._verified = True

    def gather_gradients(self) -> dict[Tensor, Tensor]:
        """Gather the gradient of every DTensor at its owner."""
        full: dict[Tensor, Tensor] = {}
        for owned in self._buckets(dtensor=True):
            first = next(param for params in owned for param in params)
            shapes = [self._shard_shapes(param) for param in owned[self.rank]]
            received = all_to_all(
                [[_local_gradient(param) for param in params] for params in owned],
                [[shape[rank] for shape in shapes] for rank in range(self.world_size)],
                torch.empty(0, dtype=first.dtype, device=first.device),
                self.group,
            )
            for param, shards in zip(owned[self.rank], zip(*received, strict=True), strict=True):
                full[param] = torch.cat(shards, shard_placement(param)[0])
        return full

    def scatter_updates(self, updates: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Send every rank its shards of the owners' updates; a parameter without an update gets zeros."""
        local: dict[Tensor, Tensor] = {}
        for owned in self._buckets(dtensor=True):
            first = next(param for params in owned for param in params)
            like = torch.empty(0, dtype=state_dtype(first), device=first.device)
            split = [self._split_into_shards(param, updates.get(param), like) for param in owned[self.rank]]
            received = all_to_all(
                [[shards[rank] for shards in split] for rank in range(self.world_size)],
                [[self._shard_shapes(param)[self.rank] for param in params] for params in owned],
                like,
                self.group,
            )
            for params, shards in zip(owned, received, strict=True):
                local.update(zip(params, shards, strict=True))
        return local

    def sync_params_(self) -> None:
        """Overwrite the parameters that every rank holds in full with their owners' values."""
        for owned in self._buckets(dtensor=False):
            all_gather_owned_([[param.detach() for param in params] for params in owned], self.group)

    def gather_state(self, param: Tensor, state: dict[str, Any], layout: Layout) -> dict[str, Any]:
        """Send a parameter's state from its owner to rank 0 of the group; other ranks get back what they passed."""
        owner = self.owners[param]
        if owner == 0 or self.rank not in (0, owner):
            return state
        if self.rank == owner:
            for name in state_shapes(layout):
                # The parameter may have been cast since the last step.
                dist.send(state[name].to(param.device, state_dtype(param)).contiguous(), group=self.group, group_dst=0)
            return state
        received = empty_state(layout, state["step"], torch.empty(0, dtype=state_dtype(param), device=param.device))
        for name in state_shapes(layout):
            dist.recv(received[name], group=self.group, group_src=owner)
        return received

    def _buckets(self, *, dtensor: bool) -> Iterable[list[list[Tensor]]]:
        """Group parameters by dtype and device, and within a group by owner.

        Parameters without a gradient are included, because ranks need not agree on which those are.
        """
        buckets: dict[Any, list[list[Tensor]]] = {}
        for param, owner in self.owners.items():
            if is_dtensor(param) == dtensor:
                buckets.setdefault((param.dtype, param.device), [[] for _ in range(self.world_size)])[owner].append(
                    param
                )
        return buckets.values()

    def _shard_shapes(self, param: Tensor) -> list[torch.Size]:
        return shard_shapes(param.shape, shard_placement(param)[0], self.world_size)

    def _split_into_shards(self, param: Tensor, update: Tensor | None, like: Tensor) -> Sequence[Tensor]:
        shapes, dim = self._shard_shapes(param), shard_placement(param)[0]
        if update is None:
            return [like.new_zeros(shape) for shape in shapes]
        return update.split([shape[dim] for shape in shapes], dim)


class StateSharding:
    """Which rank keeps the state of which parameter, over all process groups that parameters belong to.

    The state of a DTensor is sharded over the ranks that hold its shards. The state of any other parameter is sharded
    over all ranks if `share` is set. With a single process nothing is sharded.

    Attributes:
        shard_groups: the process groups that shard any state.
    """

    def __init__(self) -> None:
        self.shard_groups: list[ShardGroup] = []
        self._group_of: dict[Tensor, ShardGroup] = {}
        self._assigned_for: list[Tensor] = []
        self._world: dist.ProcessGroup | None = None

    def shard_group(self, param: Tensor) -> ShardGroup | None:
        """The ranks that shard a parameter's state; None if every process keeps the whole of it."""
        return self._group_of.get(param)

    def owns(self, param: Tensor) -> bool:
        """Whether this rank keeps the parameter's state."""
        shard_group = self._group_of.get(param)
        return shard_group is None or shard_group.owners[param] == shard_group.rank

    def assign_owners(self, param_groups: Sequence[Mapping[str, Any]], *, share: bool) -> bool:
        """Give every parameter an owner; return whether anything has changed since the last call.

        Raises:
            InputError: if a parameter is in more than one group.
        """
        world = world_group() if share else None
        params = [param for group in param_groups for param in group["params"]]
        # By identity with what is held here: the id of a parameter that is gone may come again.
        if (
            world is self._world
            and len(params) == len(self._assigned_for)
            and all(map(is_, params, self._assigned_for))
        ):
            return False
        check_unique(param_groups)
        found: dict[str, dist.ProcessGroup] = {}
        costs: dict[str, dict[Tensor, float]] = {}
        for group in param_groups:
            for param in group["params"]:
                if (ranks := shard_placement(param)[1] if is_dtensor(param) else world) is not None:
                    found[ranks.group_name] = ranks
                    cost = step_macs(Layout.of(param, group), group["precondition_frequency"])
                    costs.setdefault(ranks.group_name, {})[param] = cost
        existing = {shard_group.group: shard_group for shard_group in self.shard_groups}
        self.shard_groups = [existing.get(ranks) or ShardGroup(ranks) for ranks in found.values()]
        for shard_group in self.shard_groups:
            shard_group.assign(costs[shard_group.group.group_name])
        self._group_of = {param: shard_group for shard_group in self.shard_groups for param in shard_group.owners}
        self._assigned_for, self._world = params, world  # last: what was refused is refused again
        return True


def _local_gradient(param: Any) -> Tensor:
    """This rank's shard of a DTensor's gradient; zeros if it has none."""
    local = param.to_local()
    if param.grad is None:
        return torch.zeros_like(local)
    return param.grad.redistribute(placements=param.placements).to_local()
