"""Copies of the tensors in nested states."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in nested mappings, lists and tuples, which are copied."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(change, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [map_tensors(change, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def own_storage(tensor: Tensor) -> Tensor:
    """Copy a tensor, always: a state dict is kept while training goes on."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def copy_to_cpu(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, always: training goes on while the copy is written."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def copy_to(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy a tensor to a device, in a dtype if it is floating-point."""
    dtype = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(device, dtype, copy=True).contiguous()
