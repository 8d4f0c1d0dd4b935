"""Measurements on the way: their lines survive whatever the run survives, and training does not notice them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny_run import EPOCHS, STEPS, die, killed, lines, same, schedule, tensors, tiny_task, train
from torch import nn

from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.errors import InputError
from skipless.training import TrainingDiverged
from skipless.training.loop.measurements import MEASUREMENTS

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

EVERY = 4
TAKEN = [0, 4, 8, 12, STEPS]


def norm(model: nn.Module) -> Mapping[str, Any]:
    """Costs nothing, draws random numbers, and leaves the model in the wrong mode."""
    model.eval()
    return {
        "norm": sum(p.detach().double().square().sum().item() for p in model.parameters()),
        "draw": torch.rand(()).item(),
    }


def measured(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / MEASUREMENTS).read_text().splitlines()]


def test_training_does_not_notice(tmp_path: Path) -> None:
    train(tmp_path / "with", measure=norm, measure_every=EVERY)
    train(tmp_path / "without")
    assert same(tensors(tmp_path / "with"), tensors(tmp_path / "without"))
    assert lines(tmp_path / "with") == lines(tmp_path / "without")
    assert [line["step"] for line in measured(tmp_path / "with")] == TAKEN
    assert [line["epoch"] for line in measured(tmp_path / "with")][-1] == EPOCHS
    assert not (tmp_path / "without" / MEASUREMENTS).exists()


@pytest.mark.parametrize("call", [1, 5, 9, 14])
def test_a_killed_run_has_each_line_once(call: int, tmp_path: Path) -> None:
    calls = 0

    def dying(step: int) -> float:
        nonlocal calls
        calls += 1
        if calls == call:
            die()
        return schedule(step)

    train(tmp_path / "whole", measure=norm, measure_every=3)
    killed(lambda: train(tmp_path / "cut", schedule=dying, measure=norm, measure_every=3))
    train(tmp_path / "cut", measure=norm, measure_every=3)
    values = [
        [(line["step"], line["measurement"]["norm"]) for line in measured(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert values[0] == values[1]
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))


def test_the_instrument_itself_fits_in(tmp_path: Path) -> None:
    images = torch.randn(1, 1, 8, 8)

    def measure(model: nn.Module) -> Mapping[str, Any]:
        return measure_conditioning(model, images, blocks=[0], parts=["attn"], dtype=torch.float64).as_json()

    train(tmp_path, measure=measure, measure_every=STEPS)
    first, last = measured(tmp_path)
    kappas = [line["measurement"]["blocks"][0]["attn"]["skip"]["kappa"]["value"] for line in (first, last)]
    expected = measure(tiny_task().model)["blocks"][0]["attn"]["skip"]["kappa"]["value"]
    assert kappas[0] == pytest.approx(expected)
    assert kappas[1] != kappas[0]


def test_a_run_may_be_resumed_with_another_interval(tmp_path: Path) -> None:
    killed(lambda: train(tmp_path, schedule=lambda step: die() if step == 9 else schedule(step)))
    train(tmp_path, measure=norm, measure_every=5)
    resumed = json.loads((tmp_path / "run.json").read_text())["resumed"][0]["step"]
    assert resumed in (4, 8)  # the kill may have come while the checkpoint of step 8 was being written
    assert [line["step"] for line in measured(tmp_path)] == [step for step in (5, 10, STEPS) if step > resumed]


def test_nothing_to_measure_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measure_every 5, but this task has nothing to measure"):
        train(tmp_path, measure_every=5)
    with pytest.raises(InputError, match="measure_every -1 is too small"):
        train(tmp_path, measure_every=-1)


def test_broken_weights_end_the_run_as_always(tmp_path: Path) -> None:
    def exploding(step: int) -> float:
        return 1e30 if step else 0.0

    with pytest.raises(TrainingDiverged):
        train(tmp_path, schedule=exploding, measure=norm, measure_every=1)
    assert json.loads((tmp_path / "result.json").read_text())["diverged"]
    assert measured(tmp_path)[0]["step"] == 0
