"""Replica consistency: all processes must start from the same weights, which are compared by checksum."""

import hashlib
from collections.abc import Mapping

import torch
from jaxtyping import Int64
from lightning_fabric import Fabric
from torch import Tensor

from skipless.errors import InputError
from skipless.training.processes.collectives import all_gather


def checksums(tensors: Mapping[str, Tensor]) -> Int64[Tensor, " n"]:
    """Return 63 bits of SHA-256 of every tensor. The first entry is that of all names, shapes and dtypes.

    Example:
        >>> one, other = checksums({"w": torch.zeros(2)}), checksums({"w": torch.tensor([0.0, 1e-9])})
        >>> (one == other).tolist()
        [True, False]
    """
    listed = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    sums = [_to_int63(hashlib.sha256("\n".join(listed).encode()))]
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sums.append(_to_int63(hashlib.sha256(flat.numpy().data)))
    return torch.tensor(sums)


def check_consistency(
    fabric: Fabric, tensors: Mapping[str, Tensor], expected: Int64[Tensor, " n"] | None = None
) -> None:
    """Check that every process holds the same tensors.

    Args:
        fabric: the processes; all of them must call this together.
        tensors: unsharded tensors of this process.
        expected: checksums that the tensors must also have: those of the first process before sharding.

    Raises:
        InputError: on every process; it names a process that differs and its first tensor that does.
    """
    if fabric.world_size == 1:
        return
    own = checksums(tensors)
    if expected is not None and not torch.equal(own, expected):
        raise InputError(
            f"process {fabric.global_rank} of {fabric.world_size} holds other weights than the first one gave out "
            f"(first: {_first_different(tensors, own != expected)}); give the same command again, on other hardware if "
            "that repeats"
        )
    layouts = all_gather(fabric, own[:1])
    if (rank := _first_different_rank(layouts)) is not None:
        raise InputError(
            f"process {rank} of {fabric.world_size} builds another model than the first one: start all with one command"
        )
    found = all_gather(fabric, own)
    if (rank := _first_different_rank(found)) is not None:
        raise InputError(
            f"process {rank} of {fabric.world_size} starts from other weights than the first one "
            f"(first: {_first_different(tensors, found[rank] != found[0])}): build the model from one seed on all of "
            "them"
        )


def _first_different_rank(rows: Int64[Tensor, "ranks n"]) -> int | None:
    """Return the first process whose row differs from the first one's; None if all agree."""
    return next((rank for rank in range(len(rows)) if not torch.equal(rows[rank], rows[0])), None)


def _first_different(tensors: Mapping[str, Tensor], different: Tensor) -> str:
    return next((name for name, bad in zip(tensors, different[1:].tolist(), strict=True) if bad), "their names")


def _to_int63(digest: "hashlib._Hash") -> int:
    return int.from_bytes(digest.digest()[:8], "big") >> 1
