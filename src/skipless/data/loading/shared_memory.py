"""Allocation of batches, in shared memory within a worker."""

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def empty_batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate a batch; within a worker in shared memory, which saves a copy when the batch is sent.

    Example:
        >>> empty_batch((2, 3), torch.uint8).shape
        torch.Size([2, 3])
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # as torch's default_collate does
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # pyright: ignore
