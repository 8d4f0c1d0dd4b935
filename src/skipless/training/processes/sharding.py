"""Sharding a task (FSDP2), gathering full tensors from it, and loading them back into shards."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.models import block_views


def shard_(task: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a task's parameters over a mesh, in place. Every transformer block is one unit, the rest another.

    A process whose task is on the meta device gets shards of the first process's weights. Only the first process then
    has to initialise the model, and the weights depend on the seed alone, not on the number of processes.

    Raises:
        InputError: if the first process's own task is on the meta device.
    """
    mesh = mesh["data_parallel"]
    held = task.state_dict() if mesh.get_rank() == 0 else {}
    if any(tensor.is_meta for tensor in held.values()):
        raise InputError("the first process's model is on the meta device: build it there, initialised, as the others")
    waiting = torch.tensor(float(_is_deferred(task)), device=mesh.device_type)
    dist.all_reduce(waiting)
    # Sharding frees the full tensors; this keeps them.
    full_tensors = {name: tensor.detach() for name, tensor in held.items()}
    for block in _blocks(task):
        fully_shard(block, mesh=mesh)
    fully_shard(task, mesh=mesh)
    if waiting.item():
        _scatter_shards_(task, full_tensors, mesh)
    return task


def parameter_names(task: nn.Module) -> dict[int, str]:
    """Map the `id` of every parameter to its name; to be called before `shard_` replaces the parameters."""
    return {id(parameter): name for name, parameter in task.named_parameters()}


def rebind_parameters_(optimizer: Optimizer, task: nn.Module, names: Mapping[int, str]) -> None:
    """Replace the parameters in an optimizer that has not stepped by the sharded ones of the same names.

    Args:
        optimizer: holds the parameters from before sharding.
        task: the sharded task.
        names: `parameter_names` of the task from before sharding.

    Raises:
        InputError: if the optimizer holds parameters of another module.
    """
    now = dict(task.named_parameters())
    for group in optimizer.param_groups:
        if any(id(parameter) not in names for parameter in group["params"]):
            raise InputError(
                f"{type(optimizer).__name__} holds parameters that are not the task's: build it from the task"
            )
        group["params"] = [now[names[id(parameter)]] for parameter in group["params"]]


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather the shards of a tensor; others are returned as they are. All processes must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with full tensors, on the module's device. All processes must call this together."""
    return {name: full_tensor(tensor.detach()) for name, tensor in module.state_dict().items()}


def full_state_dict_on_cpu(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """Return the state dict with full tensors, copied to the CPU one by one: the device holds one at a time.

    All processes must call this together.

    Args:
        module: sharded or not.
        keep: whether this process needs the tensors; else it gets an empty dict.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        gathered = full_tensor(tensor.detach())
        if keep:
            state[name] = gathered.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return state


def load_full_state_dict_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy full tensors of the right names and shapes into a module, sharded or not, without communication."""
    own = module.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        module.load_state_dict(dict(tensors), assign=True)
        return
    if not any(isinstance(tensor, DTensor) for tensor in own.values()):
        module.load_state_dict(dict(tensors))
        return
    with torch.no_grad():
        for name, tensor in own.items():
            _copy_shard_(tensor, tensors[name])


class UnshardedCopies:
    """Unsharded copies of a sharded task's modules, for evaluators; they have weights only while they are used.

    A sharded module can be called only within the task's forward pass; elsewhere its parameters are shards.

    Args:
        task: the task before it is sharded.
    """

    def __init__(self, task: nn.Module) -> None:
        parts = list(task.children()) if hasattr(task, "model") else [task]
        self._copies = [(part, _meta_copy(part)) for part in parts]

    def of(self, module: nn.Module) -> nn.Module:
        """Return the module's copy, with the present weights. All processes must call this together."""
        copied = next(copied for part, copied in self._copies if part is module)
        copied.load_state_dict(full_state_dict(module), assign=True)
        copied.requires_grad_(False)
        for own, its in zip(module.modules(), copied.modules(), strict=True):
            its.training = own.training
        return copied

    def release(self) -> None:
        """Free the weights of all copies."""
        for _, copied in self._copies:
            copied.load_state_dict(
                {name: tensor.to("meta") for name, tensor in copied.state_dict().items()}, assign=True
            )


def _blocks(task: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of the task, of a teacher as well; none if no adapter knows the model."""
    try:
        return [view.block for view in block_views(task)]
    except InputError:
        return []


def _is_deferred(task: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in task.state_dict().values())


def _scatter_shards_(task: nn.Module, held: Mapping[str, Tensor], mesh: DeviceMesh) -> None:
    """Copy the first process's tensors into the shards of all, one tensor at a time."""
    if _is_deferred(task):
        task.to_empty(device=_device(mesh))
    source = dist.get_global_rank(mesh.get_group(), 0)
    with torch.no_grad():
        for name, tensor in task.state_dict().items():
            given = held.get(name)
            full = torch.empty(tensor.shape, dtype=tensor.dtype) if given is None else given
            full = full.to(_device(mesh)).contiguous()
            dist.broadcast(full, source)
            _copy_shard_(tensor, full)


def _copy_shard_(tensor: Tensor, full: Tensor) -> None:
    """Copy a full tensor into a tensor, or into this process's shard of it."""
    if isinstance(tensor, DTensor):
        full = full.to(tensor.device)
        shard = distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(shard.to_local())
    else:
        tensor.copy_(full)


def _meta_copy(module: nn.Module) -> nn.Module:
    """Copy a module with its parameters on the meta device. Buffers are copied, non-persistent ones as well."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _device(mesh: DeviceMesh) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")
