"""MetricMeter: averages named scalars over the steps between two log lines, and keeps them on the device until then."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor


class MetricMeter:
    """Collects a task's outputs without waiting for the device; only `read` synchronises.

    Args:
        fabric: averages the scalars over the processes of a distributed run.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._pending: list[dict[str, Tensor]] = []
        self._values: dict[str, list[float]] = {}

    def add(self, output: Mapping[str, Tensor]) -> None:
        """Add the outputs of one micro-batch, 0-d tensors."""
        self._pending.append({name: value.detach() for name, value in output.items()})

    def read(self) -> list[float]:
        """Fetch the values that were added since the last call.

        Returns:
            The losses among them, in order.
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
        """Return the mean of all values read since the last call.

        Values that are not finite are left out: in fp16 the gradient norm is infinite at a step that the scaler skips.
        """
        finite = {name: [value for value in column if math.isfinite(value)] for name, column in self._values.items()}
        self._values = {}
        return {name: math.fsum(column) / len(column) for name, column in finite.items() if column}

    def state(self) -> dict[str, Any]:
        """Return the values that were read but not yet averaged, so that a resumed run logs the same means."""
        return self._values

    def restore(self, values: dict[str, Any]) -> None:
        """Restore a `state`."""
        self._values = values
