"""A task in shards (FSDP2), whole tensors out of it, and back into shards."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.models import block_views


def shard_(task: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Share a task's parameters out over a mesh, in place: every transformer block is a unit, the rest another.

    A process whose task is on the meta device takes its share of what the first process holds: only that one has to
    build and initialise the model, and a function of the seed stays one, whatever the number of processes.

    Raises:
        InputError: if the first process's own task is on the meta device.
    """
    mesh = mesh["data_parallel"]
    held = task.state_dict() if mesh.get_rank() == 0 else {}
    if any(tensor.is_meta for tensor in held.values()):
        raise InputError("the first process's model is on the meta device: build it there, initialised, as the others")
    waiting = torch.tensor(float(_is_deferred(task)), device=mesh.device_type)
    dist.all_reduce(waiting)
    # Kept: sharding lets go of the whole tensors.
    full_tensors = {name: tensor.detach() for name, tensor in held.items()}
    for block in _blocks(task):
        fully_shard(block, mesh=mesh)
    fully_shard(task, mesh=mesh)
    if waiting.item():
        _scatter_shards_(task, full_tensors, mesh)
    return task


def is_sharded(task: nn.Module) -> bool:
    """Whether `shard_` has been here."""
    return isinstance(task, FSDPModule)


def parameter_names(task: nn.Module) -> dict[int, str]:
    """Names of the parameters by identity, to be taken before `shard_` replaces them."""
    return {id(parameter): name for name, parameter in task.named_parameters()}


def rebind_parameters_(optimizer: Optimizer, task: nn.Module, names: Mapping[int, str]) -> None:
    """Let an optimizer that has not stepped hold the parameters that have replaced its own.

    Raises:
        InputError: if it holds parameters of another module.
    """
    now = dict(task.named_parameters())
    for group in optimizer.param_groups:
        if any(id(parameter) not in names for parameter in group["params"]):
            raise InputError(
                f"{type(optimizer).__name__} holds parameters that are not the task's: build it from the task"
            )
        group["params"] = [now[names[id(parameter)]] for parameter in group["params"]]


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all of its shards; every process must ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors, where the module is; all processes must call this together."""
    return {name: full_tensor(tensor.detach()) for name, tensor in module.state_dict().items()}


def full_state_dict_on_cpu(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """The state dict with whole tensors, copied to the CPU: a device holds one of them at a time.

    Args:
        module: of any strategy.
        keep: whether this process wants it; else it gets none. All must call this together.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        gathered = full_tensor(tensor.detach())
        if keep:
            state[name] = gathered.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return state


def load_full_state_dict_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy whole tensors, of the right names and shapes, into a module, sharded or not. Nothing is communicated."""
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
    """Unsharded copies of a task's parts, without weights until they are asked for: what evaluators look at.

    Sharded modules answer in the task's forward pass only; elsewhere their parameters are shards.

    Args:
        task: not sharded yet.
    """

    def __init__(self, task: nn.Module) -> None:
        parts = list(task.children()) if hasattr(task, "model") else [task]
        self._copies = [(part, _meta_copy(part)) for part in parts]

    def of(self, module: nn.Module) -> nn.Module:
        """The module's twin with the present weights; every process must ask for it at the same time."""
        twin = next(twin for part, twin in self._copies if part is module)
        twin.load_state_dict(full_state_dict(module), assign=True)
        twin.requires_grad_(False)
        for own, its in zip(module.modules(), twin.modules(), strict=True):
            its.training = own.training
        return twin

    def release(self) -> None:
        """Let go of the weights."""
        for _, twin in self._copies:
            twin.load_state_dict({name: tensor.to("meta") for name, tensor in twin.state_dict().items()}, assign=True)


def _blocks(task: nn.Module) -> list[nn.Module]:
    """Transformer blocks that an adapter knows, of student and teacher both."""
    try:
        return [view.block for view in block_views(task)]
    except InputError:
        return []


def _is_deferred(task: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in task.state_dict().values())


def _scatter_shards_(task: nn.Module, held: Mapping[str, Tensor], mesh: DeviceMesh) -> None:
    """Scatter the first process's tensors into the shards, one by one."""
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
    """Write into a tensor, or into this process's shard of it."""
    if isinstance(tensor, DTensor):
        full = full.to(tensor.device)
        shard = distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(shard.to_local())
    else:
        tensor.copy_(full)


def _meta_copy(module: nn.Module) -> nn.Module:
    """A copy whose parameters are on the meta device; buffers, also those that no state dict has, are copied."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _device(mesh: DeviceMesh) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")
