"""SOAP against traces of its authors' implementation, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skipless.optim import SOAP

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["soap_default_freq3", "soap_freq1_nobias_wd0", "soap_maxdim12"])
def test_soap_equals_the_authors_trace_at_every_step(name: str) -> None:
    trace = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{name}.npz").items() if key != "hyper"}
    hyper = json.loads(str(np.load(GOLDEN / f"{name}.npz")["hyper"]))
    steps, shapes, _ = (hyper.pop(key) for key in ("steps", "shapes", "dtype"))
    hyper["betas"] = tuple(hyper["betas"])
    params = [torch.nn.Parameter(trace[f"param_{i}_init"].clone()) for i in range(len(shapes))]
    optimizer = SOAP(params, **hyper)
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = trace[f"grad_{i}_step{step}"]
        optimizer.step()
        for i, param in enumerate(params):
            torch.testing.assert_close(param.detach(), trace[f"param_{i}_step{step}"], rtol=0, atol=1e-8)
