"""Full optimizer state dicts: gathered on rank 0 from all ranks, and loaded on any number of ranks.

FSDP calls this a full state dict.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.optim.soap.collectives import is_dtensor, is_rank_zero
from skipless.optim.soap.optimizer import SOAP
from skipless.optim.soap.tensors import map_tensors


@torch.no_grad()
def gathered_state(optimizer: Optimizer) -> dict[str, Any] | None:
    """Gather an optimizer's full state on rank 0.

    All ranks must call it, at the same step. The ranks send SOAP's sharded state and the shards of DTensors; what every
    rank holds alike is not sent.

    Args:
        optimizer: any optimizer, not a wrapper around one.

    Returns:
        On rank 0, or in a single process: what `state_dict` of one process would give. The tensors are on the CPU, and
        each has a storage of its own. On all other ranks: `None`.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> state = gathered_state(torch.optim.AdamW([weight]))
        >>> load_gathered_state_(torch.optim.AdamW([weight]), state).param_groups[0]["betas"]
        (0.9, 0.999)
    """
    if isinstance(optimizer, SOAP):
        return optimizer.full_state_dict()
    rank_zero = is_rank_zero()

    def full_tensor(tensor: Any) -> Tensor | None:
        if is_dtensor(tensor):
            tensor = tensor.full_tensor()
        return tensor.detach().to("cpu", copy=True) if rank_zero else None

    saved = map_tensors(full_tensor, optimizer.state_dict())
    return saved if rank_zero else None


@torch.no_grad()
def load_gathered_state_(optimizer: Optimizer, state: Mapping[str, Any]) -> Optimizer:
    """Load a full state, from `gathered_state` or from `state_dict` of one process; every rank keeps its own part.

    The ranks send nothing: every rank passes the full state, which may lie in a memory-mapped file.

    Args:
        optimizer: of the same class, with the same parameters in the same groups; not a wrapper around one.
        state: the full state; it is not changed.

    Returns:
        The optimizer.

    Raises:
        InputError: if the state is of another model or another optimizer.
    """
    if isinstance(optimizer, SOAP):
        optimizer.load_state_dict(dict(state))
        return optimizer
    # The last pre-hook: what is sharded is what the others have made of the state.
    hook = optimizer.register_load_state_dict_pre_hook(_shard_states)
    try:
        optimizer.load_state_dict(dict(state))
    except ValueError as error:
        raise InputError(f"{type(optimizer).__name__}: {error}: load the checkpoint of this model") from error
    finally:
        hook.remove()
    return optimizer


def _shard_states(optimizer: Optimizer, loaded: dict[str, Any]) -> dict[str, Any]:
    """Shard the full states in a dict as the parameters are sharded."""
    if missing := {"state", "param_groups"} - loaded.keys():
        raise InputError(f"no full state of an optimizer: it lacks {', '.join(sorted(missing))}")
    saved = [index for group in loaded["param_groups"] for index in group["params"]]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if len(saved) != len(params):
        raise InputError(
            f"the state of an optimizer of {len(saved)} parameters cannot be used for {len(params)}: load the "
            "checkpoint of this model"
        )
    by_index = dict(zip(saved, params, strict=True))
    states = {
        index: map_tensors(partial(_shard_like, by_index[index]), own) if index in by_index else own
        for index, own in loaded["state"].items()
    }
    return {**loaded, "state": states}


def _shard_like(param: Any, tensor: Tensor) -> Tensor:
    """Copy a tensor; if it has the shape of a DTensor parameter, shard it as the parameter is sharded."""
    if not is_dtensor(param) or tensor.shape != param.shape:
        return tensor.detach().clone()
    from torch.distributed.tensor import DTensor, distribute_tensor

    local = distribute_tensor(tensor.to(param.device), param.device_mesh, param.placements, src_data_rank=None)
    return DTensor.from_local(
        local.to_local().clone(), param.device_mesh, param.placements, shape=param.shape, stride=param.stride()
    )
