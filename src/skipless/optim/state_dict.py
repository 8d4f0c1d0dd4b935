"""An optimizer's state in one piece, whatever it is spread over: for checkpoints that any number of ranks can load."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from skipless.errors import InputError
from skipless.optim.soap.collectives import is_first, is_sharded
from skipless.optim.soap.optimizer import SOAP


@torch.no_grad()
def gathered_state(optimizer: Optimizer) -> dict[str, Any] | None:
    """Bring an optimizer's state together on rank 0.

    All ranks must call it, at the same step: SOAP's shares and the shards of DTensors travel; what every rank holds
    alike does not.

    Args:
        optimizer: any; not wrapped.

    Returns:
        On rank 0, or alone: what `state_dict` of one process would give, its tensors on the CPU, each with a storage of
        its own. `None` on all other ranks.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> state = gathered_state(torch.optim.AdamW([weight]))
        >>> load_gathered_state_(torch.optim.AdamW([weight]), state).param_groups[0]["betas"]
        (0.9, 0.999)
    """
    if isinstance(optimizer, SOAP):
        return optimizer.full_state_dict()
    first = is_first()

    def whole(tensor: Any) -> Tensor | None:
        if is_sharded(tensor):
            tensor = tensor.full_tensor()
        return tensor.detach().to("cpu", copy=True) if first else None

    saved = optimizer.state_dict()
    saved["state"] = _map_tensors(whole, saved["state"])
    return saved if first else None


@torch.no_grad()
def load_gathered_state_(optimizer: Optimizer, state: Mapping[str, Any]) -> Optimizer:
    """Load a whole state, as `gathered_state` and `state_dict` give it: every rank keeps what is its own to keep.

    Nothing travels: each rank is given everything, which may lie in a mapped file.

    Args:
        optimizer: of the same kind and the same parameters in the same groups; not wrapped.
        state: stays as it is.

    Returns:
        The optimizer.

    Raises:
        InputError: if the state is of another model or another optimizer.
    """
    if isinstance(optimizer, SOAP):
        optimizer.load_state_dict(dict(state))
        return optimizer
    saved = [index for group in state["param_groups"] for index in group["params"]]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if len(saved) != len(params):
        raise InputError(
            f"the state of an optimizer of {len(saved)} parameters cannot be used for {len(params)}: load the "
            "checkpoint of this model"
        )
    states = {
        index: _map_tensors(lambda tensor, param=param: _cut_like(param, tensor), state["state"][index])
        for index, param in zip(saved, params, strict=True)
        if index in state["state"]
    }
    try:
        optimizer.load_state_dict({**state, "state": states})
    except ValueError as error:
        raise InputError(f"{type(optimizer).__name__}: {error}: load the checkpoint of this model") from error
    return optimizer


def _cut_like(param: Any, tensor: Tensor) -> Tensor:
    """Copy a tensor; what has the shape of a DTensor parameter is cut as it is."""
    if not is_sharded(param) or tensor.shape != param.shape:
        return tensor.detach().clone()
    from torch.distributed.tensor import DTensor, distribute_tensor

    local = distribute_tensor(tensor.to(param.device), param.device_mesh, param.placements, src_data_rank=None)
    return DTensor.from_local(
        local.to_local().clone(), param.device_mesh, param.placements, shape=param.shape, stride=param.stride()
    )


def _map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in nested mappings, lists and tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(change, item) for key, item in value.items()}
    return type(value)(_map_tensors(change, item) for item in value) if isinstance(value, list | tuple) else value
