"""What a task does around the steps: when it is asked, what it sees, and how it ends a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny_run import STEPS, lines, schedule, tiny_task, train
from torch import Tensor
from torch.optim import Optimizer

from skipless.tasks import Supervised
from skipless.training import TrainingDiverged


class Hooked(Supervised):
    """Notes what it is asked, and how many gradients there are then."""

    def __init__(self, task: Supervised, stop_after: int | None = None) -> None:
        super().__init__(task.model, task.classes, task.config)
        self.asked: list[tuple[str, int, bool]] = []
        self.rates: list[float] = []
        self.stop_after = stop_after

    def note(self, what: str, step: int) -> None:
        self.asked.append((what, step, all(p.grad is not None for p in self.parameters())))

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.note("forward", -1)
        return super().forward(images, labels)

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        self.note("before_step", step)
        self.rates.append(optimizer.param_groups[0]["lr"])

    def before_update(self, step: int) -> dict[str, Tensor]:
        self.note("before_update", step)
        return {"largest": torch.stack([p.grad.abs().max() for p in self.parameters() if p.grad is not None]).max()}

    def after_step(self, step: int) -> dict[str, Any] | None:
        self.note("after_step", step)
        if step == self.stop_after:
            return {"seen": 1, "stop": "the task has had enough", "remedy": "ask it why"}
        return {"seen": step} if step % 5 == 4 else None


def test_hooks_are_called_around_every_step(tmp_path: Path) -> None:
    task = Hooked(tiny_task())
    train(tmp_path, task=task, accumulation=2)
    expected = [
        ("before_step", False),
        ("forward", False),
        ("forward", True),
        ("before_update", True),
        ("after_step", False),
    ]
    assert [(what, grads) for what, _, grads in task.asked] == expected * STEPS
    assert [step for what, step, _ in task.asked if what == "after_step"] == list(range(STEPS))
    assert task.rates == [schedule(step) for step in range(STEPS)]
    logged = lines(tmp_path)
    assert [(line["step"], line["watch"]) for line in logged if "watch" in line] == [
        (step + 1, {"seen": step}) for step in range(4, STEPS, 5)
    ]
    assert all(line["largest"] > 0 for line in logged if "loss" in line)


def test_the_loops_own_clipping_comes_first(tmp_path: Path) -> None:
    train(tmp_path, task=Hooked(tiny_task()), clip_norm=1e-3)
    assert all(line["largest"] <= 1e-3 < line["grad_norm"] for line in lines(tmp_path) if "loss" in line)


def test_a_task_can_end_the_run(tmp_path: Path) -> None:
    told = r"had enough at step 7 of 15 .*; the last checkpoint is of step 4; ask it why"
    with pytest.raises(TrainingDiverged, match=told):
        train(tmp_path, task=Hooked(tiny_task(), stop_after=6))
    assert lines(tmp_path)[-1]["watch"]["stop"] == "the task has had enough"
    assert json.loads((tmp_path / "result.json").read_text())["diverged"]
    with pytest.raises(TrainingDiverged, match=r"there is no checkpoint; ask it why"):
        train(tmp_path / "early", task=Hooked(tiny_task(), stop_after=1))
