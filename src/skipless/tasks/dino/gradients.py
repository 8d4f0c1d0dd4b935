"""Dropping, clipping and measuring gradients before the optimizer steps, without waiting for the device."""

# pyright: reportPrivateImportUsage=false
# torch does not list its _foreach functions.

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from skipless.tasks.dino.config import Clipping

_EPS = 1e-6  # as in torch's own clipping and in the published code


def drop_gradients_(module: nn.Module) -> None:
    """Remove the gradients of a module's parameters; the optimizer then skips them, weight decay included."""
    for parameter in module.parameters():
        parameter.grad = None


def local_shards(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return this process's shard of each sharded tensor (FSDP2), sharing its memory; other tensors as they are."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def clip_(parameters: Sequence[Tensor], clip: Clipping, clip_norm: float) -> Float[Tensor, " p"]:
    """Clip gradients in place.

    Args:
        parameters: all parameters with a gradient.
        clip: `parameter` bounds the norm of each gradient, `global` that of all together, `none` only measures.
        clip_norm: the bound.

    Returns:
        The norm of each gradient before clipping.

    Example:
        >>> weight = torch.zeros(2)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> clip_([weight], "parameter", 1.0), weight.grad
        (tensor([5.]), tensor([0.6000, 0.8000]))
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return torch.zeros(0)
    norms = torch.stack(torch._foreach_norm(grads))
    if isinstance(norms, DTensor):  # norms of shards: reduced over the processes
        norms = norms.full_tensor()
    grads = local_shards(grads)
    if clip == "parameter":
        factors = (clip_norm / (norms + _EPS)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(factors.unbind()))
    elif clip == "global":
        torch._foreach_mul_(grads, (clip_norm / (torch.linalg.vector_norm(norms) + _EPS)).clamp(max=1.0))
    return norms


def part_norms(names: Sequence[str], norms: Float[Tensor, " p"]) -> dict[str, Float[Tensor, ""]]:
    """Combine norms of parameters into norms of each block, the head, and the rest.

    Example:
        >>> part_norms(["student.blocks.0.a", "student.blocks.0.b", "student_head.c"], torch.tensor([3.0, 4.0, 1.0]))
        {'blocks.0': tensor(5.), 'head': tensor(1.)}
    """
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        module, *rest = name.split(".")
        part = "head" if module.endswith("head") else ".".join(rest[:2]) if rest[:1] == ["blocks"] else "rest"
        members.setdefault(part, []).append(index)
    each = norms.unbind()  # indexing by a list would copy it to the device, and wait for that
    return {part: torch.linalg.vector_norm(torch.stack([each[i] for i in own])) for part, own in members.items()}
