"""SOAP shared out: which rank keeps the state of a parameter, and what a step sends between ranks."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skipless.errors import InputError
from skipless.optim.soap.collectives import cut, everyone, gather_from_all, is_sharded, publish_, shard_shapes, swap
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.stack import blank_state, kept_tensors, state_dtype

# A product with a side's factor, its QR and what belongs to them, in multiply-adds of a large product (one CPU core).
_REFRESH = 4


def work(layout: Layout, frequency: int) -> float:
    """Estimate the multiply-adds of one parameter's average step."""
    entries = prod(layout.sides)
    active = [side for side, rotates in zip(layout.sides, layout.active, strict=True) if rotates]
    products = 3 * entries * sum(active) + _REFRESH * sum(side**3 for side in active) / frequency
    return layout.split * (entries + products)


def share_out(works: Sequence[float], loads: list[float]) -> list[int]:
    """Give each piece of work, the largest first, to the rank that has the least.

    Args:
        works: what there is to do.
        loads: what every rank has to do already; grows.

    Returns:
        A rank for each piece.

    Example:
        >>> share_out([1.0, 5.0, 2.0, 3.0], [0.0, 0.0])
        [0, 0, 1, 1]
    """
    owners = [0] * len(works)
    for index in sorted(range(len(works)), key=lambda index: (-works[index], index)):
        owners[index] = min(range(len(loads)), key=lambda rank: (loads[rank], rank))
        loads[owners[index]] += works[index]
    return owners


class Team:
    """The ranks of one process group, and the parameters that they share out.

    Attributes:
        owners: the rank, within the group, that keeps a parameter's state.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.ranks = group, dist.get_rank(group), dist.get_world_size(group)
        self.owners: dict[Tensor, int] = {}
        self._agreed = False

    def assign(self, works: Mapping[Tensor, float]) -> None:
        """Give these parameters, and no others, an owner; those that have one keep it."""
        old = {param: owner for param, owner in self.owners.items() if param in works}
        loads = [sum(works[param] for param, owner in old.items() if owner == rank) for rank in range(self.ranks)]
        new = [param for param in works if param not in old]
        given = dict(zip(new, share_out([works[param] for param in new], loads), strict=True))
        self.owners = {param: old[param] if param in old else given[param] for param in works}
        self._agreed = False

    def agree(self) -> None:
        """Check, once, that all ranks have shared out the same parameters.

        Raises:
            InputError: on every rank, if they have not.
        """
        if self._agreed:
            return
        told = repr([(tuple(param.shape), str(param.dtype), owner) for param, owner in self.owners.items()])
        digest = int.from_bytes(hashlib.sha256(told.encode()).digest()[:7], "big")
        own = torch.tensor([digest], device=next(iter(self.owners)).device)
        every = own.new_empty(self.ranks)
        gather_from_all(every, own, self.group)
        if other := (every != every[0]).nonzero().flatten().tolist():
            raise InputError(
                f"SOAP: ranks 0 and {other[0]} hold different parameters; build the same model and the same groups, in "
                "the same order, on every rank"
            )
        self._agreed = True

    def gather_gradients(self) -> dict[Tensor, Tensor]:
        """Bring every DTensor's gradient together at its owner."""
        whole: dict[Tensor, Tensor] = {}
        for shares in self._buckets(sharded=True):
            like = next(param for share in shares for param in share)
            shapes = [self._shapes(param) for param in shares[self.rank]]
            pieces = swap(
                [[_local_gradient(param) for param in share] for share in shares],
                [[shape[rank] for shape in shapes] for rank in range(self.ranks)],
                torch.empty(0, dtype=like.dtype, device=like.device),
                self.group,
            )
            for param, parts in zip(shares[self.rank], zip(*pieces, strict=True), strict=True):
                whole[param] = torch.cat(parts, cut(param)[0])
        return whole

    def scatter_updates(self, updates: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Hand every rank its shards of the updates; what was not updated here arrives as zeros there."""
        shards: dict[Tensor, Tensor] = {}
        for shares in self._buckets(sharded=True):
            first = next(param for share in shares for param in share)
            like = torch.empty(0, dtype=state_dtype(first), device=first.device)
            cuts = [self._shards(param, updates.get(param), like) for param in shares[self.rank]]
            pieces = swap(
                [[shards[rank] for shards in cuts] for rank in range(self.ranks)],
                [[self._shapes(param)[self.rank] for param in share] for share in shares],
                like,
                self.group,
            )
            for share, parts in zip(shares, pieces, strict=True):
                shards.update(zip(share, parts, strict=True))
        return shards

    def publish_(self) -> None:
        """Let every rank take the owners' values of the parameters that are whole on each."""
        for shares in self._buckets(sharded=False):
            publish_([[param.detach() for param in share] for share in shares], self.group)

    def at_first(self, param: Tensor, state: dict[str, Any], layout: Layout) -> dict[str, Any]:
        """Bring a parameter's state to rank 0 of the group; the others get back what they have."""
        owner = self.owners[param]
        if owner == 0 or self.rank not in (0, owner):
            return state
        if self.rank == owner:
            for tensor in kept_tensors(state):
                dist.send(tensor.contiguous(), group=self.group, group_dst=0)
            return state
        blank = blank_state(layout, state["step"], torch.empty(0, dtype=state_dtype(param), device=param.device))
        for tensor in kept_tensors(blank):
            dist.recv(tensor, group=self.group, group_src=owner)
        return blank

    def _buckets(self, *, sharded: bool) -> Iterable[list[list[Tensor]]]:
        """Parameters of one dtype by owner, whether they have a gradient or not: ranks need not agree on that."""
        buckets: dict[Any, list[list[Tensor]]] = {}
        for param, owner in self.owners.items():
            if is_sharded(param) == sharded:
                buckets.setdefault((param.dtype, param.device), [[] for _ in range(self.ranks)])[owner].append(param)
        return buckets.values()

    def _shapes(self, param: Tensor) -> list[torch.Size]:
        return shard_shapes(param.shape, cut(param)[0], self.ranks)

    def _shards(self, param: Tensor, update: Tensor | None, like: Tensor) -> Sequence[Tensor]:
        shapes, dim = self._shapes(param), cut(param)[0]
        if update is None:
            return [like.new_zeros(shape) for shape in shapes]
        return update.split([shape[dim] for shape in shapes], dim)


class Shares:
    """Who keeps what, over all process groups that parameters belong to.

    DTensors are shared out among the ranks that hold their shards; other parameters, if `share` is set, among all.
    Where there is only one process, nothing is.

    Attributes:
        teams: the process groups that share anything out.
    """

    def __init__(self) -> None:
        self.teams: list[Team] = []
        self._team_of: dict[Tensor, Team] = {}
        self._known: object = None

    def team(self, param: Tensor) -> Team | None:
        """Those who share a parameter out; None if every process keeps it for itself."""
        return self._team_of.get(param)

    def mine(self, param: Tensor) -> bool:
        """Whether this rank keeps the parameter's state."""
        team = self._team_of.get(param)
        return team is None or team.owners[param] == team.rank

    def settle(self, groups: Sequence[Mapping[str, Any]], *, share: bool) -> bool:
        """Give every parameter an owner; returns whether anything has changed since the last call."""
        processes = everyone() if share else None
        known = processes, [id(param) for group in groups for param in group["params"]]
        if known == self._known:
            return False
        self._known = known
        found: dict[str, dist.ProcessGroup] = {}
        works: dict[str, dict[Tensor, float]] = {}
        for group in groups:
            for param in group["params"]:
                if (ranks := cut(param)[1] if is_sharded(param) else processes) is not None:
                    found[ranks.group_name] = ranks
                    part = work(Layout.of(param, group), group["precondition_frequency"])
                    works.setdefault(ranks.group_name, {})[param] = part
        known_teams = {team.group: team for team in self.teams}
        self.teams = [known_teams.get(ranks) or Team(ranks) for ranks in found.values()]
        for team in self.teams:
            team.assign(works[team.group.group_name])
        self._team_of = {param: team for team in self.teams for param in team.owners}
        return True


def _local_gradient(param: Any) -> Tensor:
    """This rank's shard of a DTensor's gradient; zeros if it has none."""
    local = param.to_local()
    if param.grad is None:
        return torch.zeros_like(local)
    return param.grad.redistribute(placements=param.placements).to_local()
