"""Schedules against DINO's own numbers, and at their ends."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from skipless.errors import InputError
from skipless.optim import WarmupCosine

TRACE = np.load(Path(__file__).parents[1] / "golden" / "dino_schedules.npz")
HYPER = json.loads(str(TRACE["hyper"]))
TOTAL = HYPER["epochs"] * HYPER["iterations_per_epoch"]


@pytest.mark.parametrize("name", ["lr", "wd", "momentum"])
def test_equals_the_schedules_of_dino(name: str) -> None:
    peak, final = map(float, HYPER[name])
    warmup = HYPER["warmup_epochs"] * HYPER["iterations_per_epoch"] if name == "lr" else 0
    schedule = WarmupCosine(peak, TOTAL, warmup_steps=warmup, final=final)
    np.testing.assert_allclose([schedule(step) for step in range(TOTAL)], TRACE[name], rtol=1e-12)


def test_the_supervised_recipe_rises_from_zero_and_ends_near_its_floor() -> None:
    schedule = WarmupCosine(4e-3, total_steps=300, warmup_steps=50)
    values = [schedule(step) for step in range(300)]
    assert (values[0], values[49], values[50]) == (0.0, 4e-3, 4e-3)
    assert all(a < b for a, b in pairwise(values[:50]))
    assert all(a > b for a, b in pairwise(values[50:]))
    assert 1e-6 < values[-1] < 2e-6


@pytest.mark.parametrize(("warmup", "expected"), [(1, [0.5, 1.0]), (2, [0.5, 1.0])])
def test_a_short_warm_up_starts_at_its_start(warmup: int, expected: list[float]) -> None:
    schedule = WarmupCosine(1.0, total_steps=4, warmup_steps=warmup, start=0.5)
    assert [schedule(0), schedule(1)] == expected


def test_a_warm_up_may_take_all_steps() -> None:
    assert [WarmupCosine(1.0, 3, warmup_steps=3)(step) for step in range(3)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("step", [-1, 10, 11])
def test_a_step_outside_the_run_is_quoted(step: int) -> None:
    with pytest.raises(InputError, match=rf"step {step} lies outside 0\.\.9"):
        WarmupCosine(1.0, 10)(step)


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        ({"total_steps": 0}, "total_steps=0"),
        ({"total_steps": 5, "warmup_steps": 6}, r"warmup_steps=6 must lie in 0\.\.5"),
        ({"total_steps": 5, "warmup_steps": -1}, "warmup_steps=-1"),
        ({"total_steps": 5, "peak": float("inf")}, "peak=inf"),
        ({"total_steps": 5, "final": float("nan")}, "final=nan"),
    ],
)
def test_bad_values_are_quoted(arguments: dict, quoted: str) -> None:
    with pytest.raises(InputError, match=quoted):
        WarmupCosine(**({"peak": 1.0} | arguments))
