"""The loss against the published numbers, a naive twin, and what must hold whatever the numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.dino import loss_of
from torch.nn import functional as F

from skipless.errors import InputError
from skipless.tasks import DINOConfig, DINOLoss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "dino_loss.npz")
HYPER = json.loads(str(GOLDEN["hyper"]))


def test_equals_the_published_loss_and_centre_epoch_by_epoch() -> None:
    config = DINOConfig(
        warmup_teacher_temp=HYPER["warmup_teacher_temp"],
        teacher_temp=HYPER["teacher_temp"],
        warmup_teacher_temp_epochs=HYPER["warmup_teacher_temp_epochs"],
    )
    schedules = config.schedules(HYPER["nepochs"], 1)
    loss = DINOLoss(HYPER["out_dim"], student_temp=HYPER["student_temp"], center_momentum=HYPER["center_momentum"])
    epochs = sum(name.startswith("loss_") for name in GOLDEN)
    assert epochs == 6
    for t in range(epochs):
        student = torch.from_numpy(GOLDEN[f"student_{t}"]).chunk(HYPER["ncrops"])
        teacher = torch.from_numpy(GOLDEN[f"teacher_{t}"]).chunk(2)
        value = loss(student, teacher, teacher_temp=schedules.teacher_temp(t))
        np.testing.assert_allclose(value.item(), GOLDEN[f"loss_{t}"], rtol=1e-13)
        np.testing.assert_allclose(loss.center.numpy(), GOLDEN[f"center_{t}"], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("crops", "for_teacher"), [(2, 1), (2, 2), (3, 1), (5, 2)])
def test_equals_the_loop_over_pairs(crops: int, for_teacher: int) -> None:
    generator = torch.Generator().manual_seed(crops)
    student = [torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(crops)]
    teacher = [torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(for_teacher)]
    loss = DINOLoss(7, student_temp=0.2).double()
    loss.center.normal_(generator=generator)
    naive = loss_of([list(s) for s in student], [list(t) for t in teacher], loss.center[0], 0.2, 0.05)
    assert loss(student, teacher, teacher_temp=0.05).item() == pytest.approx(naive.item(), rel=1e-12)


def test_half_precision_is_computed_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = [torch.randn(4, 16, generator=generator).bfloat16() for _ in range(3)]
    loss = DINOLoss(16)
    expected = DINOLoss(16)([crop.float() for crop in crops], [crop.float() for crop in crops[:2]], teacher_temp=0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(crops, crops[:2], teacher_temp=0.04)
    assert value.dtype == loss.center.dtype == torch.float32
    assert value.item() == expected.item()


def test_outputs_far_apart_give_finite_losses_and_gradients() -> None:
    student = [(1e4 * torch.randn(4, 16)).requires_grad_() for _ in range(3)]
    value = DINOLoss(16)(student, [1e4 * torch.randn(4, 16) for _ in range(2)], teacher_temp=0.04)
    value.backward()
    assert value.isfinite()
    assert all(crop.grad is not None and crop.grad.isfinite().all() for crop in student)


def test_what_is_not_finite_leaves_the_centre() -> None:
    loss = DINOLoss(4)
    crops = [torch.tensor([[0.0, 1.0, 2.0, 3.0]])] * 2
    loss(crops, crops, teacher_temp=0.04)
    before = loss.center.clone()
    bad = [crops[0], torch.full((1, 4), math.nan)]
    assert loss(crops, bad, teacher_temp=0.04).isnan()
    assert torch.equal(loss.center, before)
    assert not before.eq(0).all()


def test_the_centre_moves_in_training_only_and_is_saved() -> None:
    crops = [torch.ones(2, 3)] * 2
    loss = DINOLoss(3, center_momentum=0.75).eval()
    loss(crops, crops, teacher_temp=1.0)
    assert loss.center.eq(0).all()
    loss.train()(crops, crops, teacher_temp=1.0)
    assert loss.center.eq(0.25).all()
    assert list(loss.state_dict()) == ["center"]


def test_micro_batches_move_the_centre_once_as_their_union_does() -> None:
    outputs = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, parts = DINOLoss(5).double(), DINOLoss(5).double()
    whole.observe(list(outputs))
    whole.update_center_()
    for part in outputs.split(2, dim=1):
        parts.observe(list(part))
    parts.update_center_()
    torch.testing.assert_close(whole.center, parts.center, rtol=0, atol=1e-16)
    parts.update_center_()  # nothing observed since
    torch.testing.assert_close(whole.center, parts.center, rtol=0, atol=1e-16)


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = [torch.randn(2, 3, requires_grad=True) for _ in range(2)]
    student = [torch.randn(2, 3, requires_grad=True) for _ in range(2)]
    loss = DINOLoss(3)(student, teacher, teacher_temp=0.1)
    grads = torch.autograd.grad(loss, student)
    p = [F.softmax(s / 0.1, -1) for s in student]
    q = [F.softmax(t / 0.1, -1) for t in teacher]
    torch.testing.assert_close(grads[0], (p[0] - q[1]) / 0.1 / 4)
    assert loss.grad_fn is not None
    with pytest.raises(RuntimeError, match="unused|not have been used"):
        torch.autograd.grad(DINOLoss(3)(student, teacher, teacher_temp=0.1), teacher)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_dim": 1}, "out_dim=1"),
        ({"out_dim": 4, "student_temp": 0.0}, "student_temp=0.0"),
        ({"out_dim": 4, "center_momentum": 1.5}, "center_momentum=1.5"),
    ],
)
def test_bad_values_are_quoted(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DINOLoss(**arguments)


@pytest.mark.parametrize(("crops", "for_teacher"), [(1, 1), (2, 3), (0, 0)])
def test_crops_that_cannot_be_compared_are_refused(crops: int, for_teacher: int) -> None:
    loss = DINOLoss(3)
    with pytest.raises(InputError, match=f"{crops} crops of the student and {for_teacher}"):
        loss.cross_entropy([torch.zeros(2, 3)] * crops, torch.full((for_teacher, 2, 3), 1 / 3))
    with pytest.raises(InputError, match=r"teacher_temp 0\.0"):
        loss.targets([torch.zeros(2, 3)], teacher_temp=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": "value"}, "clip='value': choose from parameter, global, none"),
        ({"teacher_temp": 0.0}, "teacher_temp=0.0 must be above 0"),
        ({"momentum": 1.1}, "momentum=1.1 must lie in 0 to 1"),
        ({"watch_every": -1}, "watch_every=-1 must be 0 or more"),
        ({"global_crops": 0}, "global_crops=0"),
        ({"weight_decay": 0.0}, "start above 0"),
    ],
)
def test_bad_settings_are_quoted(arguments: dict, message: str, unchecked: None) -> None:
    with pytest.raises(InputError, match=message):
        DINOConfig(**arguments)


def test_a_run_shorter_than_a_warm_up_is_refused() -> None:
    with pytest.raises(InputError, match="warmup_teacher_temp_epochs=30 in a run of 10 epochs"):
        DINOConfig(warmup_teacher_temp_epochs=30).schedules(100, 10)
    with pytest.raises(InputError, match="11 steps an epoch"):
        DINOConfig().schedules(10, 11)
