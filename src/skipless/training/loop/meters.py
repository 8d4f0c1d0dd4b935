"""Named scalars of the steps since the last log line, left on their device until somebody reads them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor


class MetricMeter:
    """Collects a task's outputs without waiting for the device; reading them is the loop's one synchronisation.

    Args:
        fabric: averages over the processes of a distributed run.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._pending: list[dict[str, Tensor]] = []
        self._values: dict[str, list[float]] = {}

    def add(self, output: Mapping[str, Tensor]) -> None:
        """Take one output of the task, 0-d tensors."""
        self._pending.append({name: value.detach() for name, value in output.items()})

    def read(self) -> list[float]:
        """Fetch what is pending.

        Returns:
            The losses among it, in order.
        """
        if not self._pending:
            return []
        names = list(self._pending[0])
        stacked = torch.stack([torch.stack([output[name].float() for name in names]) for output in self._pending])
        if self._fabric.world_size > 1:
            stacked = self._fabric.all_reduce(stacked, reduce_op="mean")
        self._pending.clear()
        columns = dict(zip(names, stacked.t().tolist(), strict=True))  # pyright: ignore[reportAttributeAccessIssue]
        for name, column in columns.items():
            self._values.setdefault(name, []).extend(column)
        return columns["loss"]

    def means(self) -> dict[str, float]:
        """Average what was read, and start anew.

        What is not finite is left out: in fp16 the norm of gradients is not where the scaler skips a step.
        """
        finite = {name: [value for value in column if math.isfinite(value)] for name, column in self._values.items()}
        self._values = {}
        return {name: math.fsum(column) / len(column) for name, column in finite.items() if column}

    def state(self) -> dict[str, Any]:
        """Give what was read but not averaged: a resumed run logs the same means as an undisturbed one."""
        return self._values

    def restore(self, values: dict[str, Any]) -> None:
        """Take back a `state`."""
        self._values = values
