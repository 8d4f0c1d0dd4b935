"""What ranks send each other, in few large messages; and how a DTensor is cut.

Everything travels as bytes: not every backend knows every dtype.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skipless.errors import InputError

# Entries that all ranks together publish in one message: bounds what it takes in memory.
_MESSAGE = 2**26


def everyone() -> dist.ProcessGroup | None:
    """All processes, if there are several."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if several else None


def is_first() -> bool:
    """Whether this is the process that writes: the first of all, or the only one."""
    return everyone() is None or dist.get_rank() == 0


def is_sharded(param: Tensor) -> bool:
    """Whether a parameter is a DTensor, without importing what defines them."""
    return hasattr(param, "device_mesh")


def cut(param: Any) -> tuple[int, dist.ProcessGroup]:
    """Tell along which dimension a DTensor is cut, and over which ranks; along a mesh's other dimensions it is copied.

    Raises:
        InputError: if it is not cut, or in another way than `fully_shard` does.
    """
    from torch.distributed.tensor import Shard

    cuts = [(axis, placed) for axis, placed in enumerate(param.placements) if not placed.is_replicate()]
    if len(cuts) != 1 or type(cuts[0][1]) is not Shard:
        raise InputError(
            f"SOAP: a parameter of shape {tuple(param.shape)} is placed as {param.placements}; SOAP takes DTensors as "
            "fully_shard makes them: sharded over one dimension of their mesh, replicated over the others"
        )
    axis, placed = cuts[0]
    return placed.dim, param.device_mesh.get_group(axis)


def shard_shapes(shape: torch.Size, dim: int, ranks: int) -> list[torch.Size]:
    """Give the shape of every rank's shard: equal parts rounded up, so that the last ones may be short or empty.

    Example:
        >>> [tuple(shape) for shape in shard_shapes(torch.Size([5, 2]), 0, 4)]
        [(2, 2), (2, 2), (1, 2), (0, 2)]
    """
    part = -(-shape[dim] // ranks)
    rows = [min(part, max(0, shape[dim] - rank * part)) for rank in range(ranks)]
    return [torch.Size([*shape[:dim], count, *shape[dim + 1 :]]) for count in rows]


def swap(
    outgoing: list[list[Tensor]], expected: list[list[torch.Size]], like: Tensor, group: dist.ProcessGroup
) -> list[list[Tensor]]:
    """Hand every rank its own list of tensors and take one list from each, in one message a pair.

    Args:
        outgoing: tensors for each rank.
        expected: shapes of the tensors from each rank.
        like: gives dtype and device of all of them.
        group: the ranks.
    """
    sent = _flat([tensor for tensors in outgoing for tensor in tensors], like)
    send_sizes = [like.element_size() * sum(tensor.numel() for tensor in tensors) for tensors in outgoing]
    take_sizes = [like.element_size() * sum(shape.numel() for shape in shapes) for shapes in expected]
    taken = like.new_empty(sum(take_sizes) // like.element_size())
    dist.all_to_all_single(taken.view(torch.uint8), sent.view(torch.uint8), take_sizes, send_sizes, group=group)
    pieces = iter(_parts(taken, [shape for shapes in expected for shape in shapes]))
    return [[next(pieces) for _ in shapes] for shapes in expected]


def gather_from_all(taken: Tensor, sent: Tensor, group: dist.ProcessGroup) -> None:
    """Put every rank's `sent`, one after the other, into `taken`."""
    # torch 2.14 gave all_gather_into_tensor a new name, and warns of the old one.
    gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
    gather(taken, sent, group=group)


def publish_(shares: list[list[Tensor]], group: dist.ProcessGroup) -> None:
    """Overwrite every tensor with its owner's: `shares[rank]` are the tensors of one dtype that a rank owns."""
    rank, ranks = dist.get_rank(group), len(shares)
    for portions in zip_longest(*(_portions(share, _MESSAGE // ranks) for share in shares), fillvalue=()):
        longest = max(sum(tensor.numel() for tensor in portion) for portion in portions)
        like = next(tensor for portion in portions for tensor in portion)
        sent, taken = like.new_zeros(longest), like.new_empty(ranks, longest)
        for part, tensor in zip(_parts(sent, [tensor.shape for tensor in portions[rank]]), portions[rank], strict=True):
            part.copy_(tensor)
        gather_from_all(taken.view(torch.uint8).flatten(), sent.view(torch.uint8), group)
        for owner, portion in enumerate(portions):
            if owner != rank:
                for part, tensor in zip(
                    _parts(taken[owner], [tensor.shape for tensor in portion]), portion, strict=True
                ):
                    tensor.copy_(part)


def _portions(tensors: list[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Cut a list where its tensors would exceed `limit` entries; a longer tensor stands alone."""
    portion: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if portion and size + tensor.numel() > limit:
            yield portion
            portion, size = [], 0
        portion.append(tensor)
        size += tensor.numel()
    if portion:
        yield portion


def _flat(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([tensor.reshape(-1).to(like.dtype) for tensor in tensors]) if tensors else like.new_empty(0)


def _parts(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """View the beginning of a flat tensor as tensors of these shapes."""
    sizes = [shape.numel() for shape in shapes]
    parts = flat[: sum(sizes)].split(sizes) if sizes else ()
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
