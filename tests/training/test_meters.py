"""Means over the steps since the last line."""

import json
import math

import torch
from lightning_fabric import Fabric

from skipless.training.loop.meters import MetricMeter


def test_what_is_not_finite_spoils_no_mean_and_no_line() -> None:
    """In fp16 the gradients' norm is not finite where the scaler skips a step; a loss is for the loop to judge."""
    window = MetricMeter(Fabric(accelerator="cpu", devices=1))
    for loss, norm in ((1.0, math.inf), (2.0, 3.0), (3.0, math.nan)):
        window.add({"loss": torch.tensor(loss), "grad_norm": torch.tensor(norm)})
    assert window.read() == [1.0, 2.0, 3.0]
    assert window.means() == {"loss": 2.0, "grad_norm": 3.0}
    window.add({"loss": torch.tensor(1.0), "grad_norm": torch.tensor(math.inf)})
    window.read()
    assert json.loads(json.dumps(window.means(), allow_nan=False)) == {"loss": 1.0}
