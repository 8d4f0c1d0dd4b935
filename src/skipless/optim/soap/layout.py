"""How SOAP sees a parameter: as a stack of tensors, some of whose sides are preconditioned."""

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
    """A parameter of `shape` as `split` tensors of `sides`, of which those in `active` get an eigenbasis.

    Sides of length one are dropped: their basis would be a sign. `permute` is applied before the cut.

    Example:
        >>> import torch
        >>> group = dict(split=3, max_precond_dim=10000, merge_dims=False, precondition_1d=False,
        ...              data_format="channels_first")
        >>> Layout.of(torch.zeros(96, 32), group).sides
        (32, 32)
    """

    shape: tuple[int, ...]
    permute: tuple[int, ...]
    split: int
    sides: tuple[int, ...]
    active: tuple[bool, ...]

    @classmethod
    def of(cls, param: Tensor, group: Mapping[str, Any]) -> "Layout":
        """Lay out one parameter by its group's `split`, `max_precond_dim`, `merge_dims`, `data_format`, ..."""
        shape, limit = tuple(param.shape), group["max_precond_dim"]
        last = group["merge_dims"] and group["data_format"] == "channels_last" and len(shape) == len(_CHANNELS_LAST)
        permute = _CHANNELS_LAST if last else tuple(range(len(shape)))
        split = group["split"] if len(shape) > 1 else 1
        sides = [shape[i] for i in permute] or [1]
        if sides[0] % split:
            raise InputError(f"split={split} does not divide the {sides[0]} rows of a parameter of shape {shape}")
        sides[0] //= split
        if group["merge_dims"] and len(shape) > 1:
            sides = merged(sides, limit)
        sides = [side for side in sides if side != 1] or [1]
        rotate = len(shape) > 1 or group["precondition_1d"]
        active = tuple(rotate and 1 < side <= limit for side in sides)
        return cls(shape, permute, split, tuple(sides), active)

    def fold(self, x: Float[Tensor, "p ..."]) -> Float[Tensor, "b ..."]:
        """Arrange tensors of the parameter's shape as `(p * split, *sides)`."""
        x = x.permute(0, *(axis + 1 for axis in self.permute)) if self._turned else x
        return x.reshape(-1, *self.sides)

    def unfold(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "p ..."]:
        """Undo `fold`."""
        if not self._turned:
            return x.reshape(-1, *self.shape)
        inverse = sorted(range(len(self.permute)), key=self.permute.__getitem__)
        return x.reshape(-1, *(self.shape[i] for i in self.permute)).permute(0, *(axis + 1 for axis in inverse))

    @cached_property
    def _turned(self) -> bool:
        return self.permute != tuple(range(len(self.permute)))


def merged(sides: list[int], limit: int) -> list[int]:
    """Join neighbouring sides from the left while their product stays within `limit`.

    Example:
        >>> merged([6, 3, 4, 4], 18)
        [18, 16]
    """
    joined: list[int] = []
    for side in sides:
        if joined and joined[-1] * side <= limit:
            joined[-1] *= side
        else:
            joined.append(side)
    assert prod(joined) == prod(sides)
    return joined
