"""How SOAP sees a parameter: as a stack of tensors, some of whose dimensions are preconditioned."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError

_CHANNELS_LAST = (0, 3, 1, 2)  # NHWC -> NCHW


@dataclass(frozen=True)
class Layout:
    """A parameter of `shape`, seen as `split` tensors of shape `dims`.

    The dimensions in `preconditioned` get an eigenbasis. Dimensions of length one are dropped, because their basis
    would be a sign. `permute` is applied before the parameter is split.

    Example:
        >>> import torch
        >>> group = dict(split=3, max_precond_dim=10000, merge_dims=False, precondition_1d=False,
        ...              data_format="channels_first")
        >>> Layout.of(torch.zeros(96, 32), group).dims
        (32, 32)
    """

    shape: tuple[int, ...]
    permute: tuple[int, ...]
    split: int
    dims: tuple[int, ...]
    preconditioned: tuple[bool, ...]

    @classmethod
    def of(cls, param: Tensor, group: Mapping[str, Any]) -> "Layout":
        """Lay out one parameter by its group's `split`, `max_precond_dim`, `merge_dims`, `data_format`, ..."""
        shape, limit = tuple(param.shape), group["max_precond_dim"]
        last = group["merge_dims"] and group["data_format"] == "channels_last" and len(shape) == len(_CHANNELS_LAST)
        permute = _CHANNELS_LAST if last else tuple(range(len(shape)))
        split = group["split"] if len(shape) > 1 else 1
        dims = [shape[i] for i in permute] or [1]
        if dims[0] % split:
            raise InputError(f"split={split} does not divide the {dims[0]} rows of a parameter of shape {shape}")
        dims[0] //= split
        if group["merge_dims"] and len(shape) > 1:
            dims = merge_small_dims(dims, limit)
        dims = [dim for dim in dims if dim != 1] or [1]
        rotate = len(shape) > 1 or group["precondition_1d"]
        preconditioned = tuple(rotate and 1 < dim <= limit for dim in dims)
        return cls(shape, permute, split, tuple(dims), preconditioned)

    def to_stack(self, x: Float[Tensor, "p ..."]) -> Float[Tensor, "b ..."]:
        """Arrange tensors of the parameter's shape as `(p * split, *dims)`."""
        x = x.permute(0, *(axis + 1 for axis in self.permute)) if self._is_permuted else x
        return x.reshape(-1, *self.dims)

    def from_stack(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "p ..."]:
        """Undo `to_stack`."""
        if not self._is_permuted:
            return x.reshape(-1, *self.shape)
        inverse = sorted(range(len(self.permute)), key=self.permute.__getitem__)
        return x.reshape(-1, *(self.shape[i] for i in self.permute)).permute(0, *(axis + 1 for axis in inverse))

    @cached_property
    def _is_permuted(self) -> bool:
        return self.permute != tuple(range(len(self.permute)))


def merge_small_dims(dims: list[int], limit: int) -> list[int]:
    """Merge neighbouring dimensions, from the left, while their product is at most `limit`.

    Example:
        >>> merge_small_dims([6, 3, 4, 4], 18)
        [18, 16]
    """
    merged: list[int] = []
    for dim in dims:
        if merged and merged[-1] * dim <= limit:
            merged[-1] *= dim
        else:
            merged.append(dim)
    assert prod(merged) == prod(dims)
    return merged
