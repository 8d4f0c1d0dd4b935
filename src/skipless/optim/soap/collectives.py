"""Collective operations on lists of tensors, in few large messages; and how a DTensor is sharded.

All tensors are sent as bytes, because not every backend knows every dtype.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skipless.errors import InputError

# Entries that all ranks together send in one message. This bounds the memory that a message takes.
_MAX_MESSAGE_NUMEL = 2**26


def world_group() -> dist.ProcessGroup | None:
    """The process group of all processes; `None` if there is only one process."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if several else None


def is_rank_zero() -> bool:
    """Whether this process is rank 0 of all processes, or the only one."""
    return world_group() is None or dist.get_rank() == 0


def is_dtensor(param: Tensor) -> bool:
    """Whether a parameter is a DTensor; this does not import `torch.distributed.tensor`."""
    return hasattr(param, "device_mesh")


def shard_placement(param: Any) -> tuple[int, dist.ProcessGroup]:
    """Give the dimension along which a DTensor is sharded, and the process group that holds its shards.

    Along the other dimensions of its device mesh it is replicated.

    Raises:
        InputError: if it is not sharded, or not in the way of `fully_shard`.
    """
    from torch.distributed.tensor import Shard

    sharded = [(axis, placement) for axis, placement in enumerate(param.placements) if not placement.is_replicate()]
    if len(sharded) != 1 or type(sharded[0][1]) is not Shard:
        raise InputError(
            f"SOAP: a parameter of shape {tuple(param.shape)} is placed as {param.placements}; SOAP takes DTensors as "
            "fully_shard makes them: sharded over one dimension of their mesh, replicated over the others"
        )
    axis, placement = sharded[0]
    return placement.dim, param.device_mesh.get_group(axis)


def shard_shapes(shape: torch.Size, dim: int, world_size: int) -> list[torch.Size]:
    """Give the shape of every rank's shard, as `torch.chunk` cuts: the last shards may be smaller or empty.

    Example:
        >>> [tuple(shape) for shape in shard_shapes(torch.Size([5, 2]), 0, 4)]
        [(2, 2), (2, 2), (1, 2), (0, 2)]
    """
    chunk = -(-shape[dim] // world_size)
    rows = [min(chunk, max(0, shape[dim] - rank * chunk)) for rank in range(world_size)]
    return [torch.Size([*shape[:dim], count, *shape[dim + 1 :]]) for count in rows]


def all_to_all(
    outputs: list[list[Tensor]], input_shapes: list[list[torch.Size]], like: Tensor, group: dist.ProcessGroup
) -> list[list[Tensor]]:
    """Send a list of tensors to every rank and receive a list from each, in one message for each pair of ranks.

    Args:
        outputs: the tensors to send to each rank.
        input_shapes: the shapes of the tensors to receive from each rank.
        like: gives the dtype and the device of all tensors.
        group: the ranks.

    Returns:
        The tensors received from each rank.
    """
    sent = _flatten([tensor for tensors in outputs for tensor in tensors], like)
    send_sizes = [like.element_size() * sum(tensor.numel() for tensor in tensors) for tensors in outputs]
    receive_sizes = [like.element_size() * sum(shape.numel() for shape in shapes) for shapes in input_shapes]
    received = like.new_empty(sum(receive_sizes) // like.element_size())
    dist.all_to_all_single(received.view(torch.uint8), sent.view(torch.uint8), receive_sizes, send_sizes, group=group)
    tensors = iter(_unflatten(received, [shape for shapes in input_shapes for shape in shapes]))
    return [[next(tensors) for _ in shapes] for shapes in input_shapes]


def all_gather_into(gathered: Tensor, local: Tensor, group: dist.ProcessGroup) -> None:
    """Put every rank's `local`, one after the other, into `gathered`."""
    # torch 2.14 gave all_gather_into_tensor a new name, and warns of the old one.
    gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
    gather(gathered, local, group=group)


def all_gather_owned_(owned: list[list[Tensor]], group: dist.ProcessGroup) -> None:
    """Overwrite every tensor with its owner's values.

    Args:
        owned: the tensors that each rank owns, all of one dtype; every rank passes the same lists.
        group: the ranks.
    """
    rank, world_size = dist.get_rank(group), len(owned)
    limit = _MAX_MESSAGE_NUMEL // world_size
    for buckets in zip_longest(*(_buckets(tensors, limit) for tensors in owned), fillvalue=()):
        longest = max(sum(tensor.numel() for tensor in bucket) for bucket in buckets)
        like = next(tensor for bucket in buckets for tensor in bucket)
        local, gathered = like.new_zeros(longest), like.new_empty(world_size, longest)
        views = _unflatten(local, [tensor.shape for tensor in buckets[rank]])
        for view, tensor in zip(views, buckets[rank], strict=True):
            view.copy_(tensor)
        all_gather_into(gathered.view(torch.uint8).flatten(), local.view(torch.uint8), group)
        for owner, bucket in enumerate(buckets):
            if owner != rank:
                views = _unflatten(gathered[owner], [tensor.shape for tensor in bucket])
                for view, tensor in zip(views, bucket, strict=True):
                    tensor.copy_(view)


def _buckets(tensors: list[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Split a list into buckets of at most `limit` entries; a tensor that is longer gets a bucket of its own."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def _flatten(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([tensor.reshape(-1).to(like.dtype) for tensor in tensors]) if tensors else like.new_empty(0)


def _unflatten(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """View the beginning of a flat tensor as tensors of these shapes."""
    sizes = [shape.numel() for shape in shapes]
    parts = flat[: sum(sizes)].split(sizes) if sizes else ()
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
