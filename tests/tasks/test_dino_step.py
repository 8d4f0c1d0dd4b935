"""Whole steps of ours against a naive DINO in float64: loss, gradients, student, teacher and centre."""

import pytest
import torch
from reference.dino import GRID, NaiveDINO
from torch import Tensor, nn

from skipless.optim import OptimizerConfig, build_optimizer
from skipless.tasks import DINO, DINOConfig

STEPS, PER_EPOCH = 8, 2
CLIP = 0.002


class TinyBackbone(nn.Module):
    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * GRID * GRID, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(nn.functional.adaptive_avg_pool2d(x, GRID).flatten(1)))


def make(**changes) -> DINO:
    torch.manual_seed(0)
    settings = {
        "out_dim": 6, "hidden_dim": 7, "bottleneck_dim": 4, "head_layers": 2, "teacher_temp": 0.07,
        "warmup_teacher_temp_epochs": 2, "momentum": 0.9, "clip_norm": CLIP, "watch_every": 0,
    }  # fmt: skip
    config = DINOConfig(**settings | changes)
    return DINO(TinyBackbone(), config, total_steps=STEPS, steps_per_epoch=PER_EPOCH).double()


def batches() -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    sizes = (8, 8, 4, 4, 4)
    return [[torch.rand(3, 3, n, n, generator=generator, dtype=torch.float64) for n in sizes] for _ in range(STEPS)]


def named(backbone: nn.Module, head: nn.Module) -> dict[str, Tensor]:
    parts = {"backbone": backbone, "head": head}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}


def take(task: DINO, optimizer: torch.optim.Optimizer, step: int, *micro: list[Tensor]) -> dict[str, Tensor]:
    """One step as the training loop takes it."""
    task.before_step(step, optimizer)
    output: dict[str, Tensor] = {}
    for crops in micro:
        output = task(crops)
        (output["loss"] / len(micro)).backward()
    output |= task.before_update(step)
    gradients = {name: p.grad for name, p in named(task.student, task.student_head).items() if p.grad is not None}
    output |= {f"grad {name}": grad.clone() for name, grad in gradients.items()}
    optimizer.step()
    optimizer.zero_grad()
    task.after_step(step)
    return output


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_steps_equal_a_naive_dino(norm_last_layer: bool) -> None:
    task = make(norm_last_layer=norm_last_layer)
    optimizer = build_optimizer(task, OptimizerConfig(lr=0.01, weight_decay=0.04, no_decay=()))
    weights = named(task.student, task.student_head)
    naive = NaiveDINO(
        weights, STEPS, PER_EPOCH, clip=CLIP,
        trained=tuple(name for name, p in weights.items() if p.requires_grad),
        decayed=tuple(name for name, p in weights.items() if p.requires_grad and p.ndim > 1),
    )  # fmt: skip
    dropped, clipped = 0, 0
    for step, crops in enumerate(batches()):
        expected = naive.step(step, crops)
        found = take(task, optimizer, step, crops)
        assert found["loss"].item() == pytest.approx(expected, abs=1e-10)
        grads = {name.removeprefix("grad "): value for name, value in found.items() if name.startswith("grad ")}
        assert grads.keys() == naive.gradients.keys()
        dropped += "head.last_layer.weight_v" not in grads
        clipped += any(abs(grad.norm().item() - CLIP) < 1e-5 for grad in grads.values())
        for name, grad in grads.items():
            torch.testing.assert_close(grad, naive.gradients[name], rtol=0, atol=1e-8)
        for mine, theirs in (
            (named(task.student, task.student_head), naive.student),
            (named(task.model, task.teacher_head), naive.teacher),
        ):
            for name, value in mine.items():
                torch.testing.assert_close(value.detach(), theirs[name], rtol=0, atol=1e-8, msg=name)
        torch.testing.assert_close(task.criterion.center[0], naive.center, rtol=0, atol=1e-8)
    assert dropped == PER_EPOCH
    assert clipped >= STEPS // 2


def test_micro_batches_give_the_step_of_their_union() -> None:
    whole, parts = make(), make()
    optimizers = [build_optimizer(task, OptimizerConfig(lr=0.01, weight_decay=0.04)) for task in (whole, parts)]
    for step, crops in enumerate(batches()[:4]):
        take(whole, optimizers[0], step, [torch.cat([crop, crop.flip(0) + 0.1, crop * 0.5]) for crop in crops])
        take(parts, optimizers[1], step, crops, [crop.flip(0) + 0.1 for crop in crops], [crop * 0.5 for crop in crops])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[name], rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("clip", ["global", "none"])
def test_clipping_together_keeps_the_direction(clip: str) -> None:
    task, free = make(clip=clip, freeze_last_layer=0), make(clip="none", freeze_last_layer=0)
    grads = []
    for one in (task, free):
        one(batches()[0])["loss"].backward()
        norm = one.before_update(0)["grad_norm"]
        grads.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
    assert norm.item() == pytest.approx(grads[1].norm().item())
    bound = CLIP if clip == "global" else grads[1].norm().item()
    assert bound <= norm
    torch.testing.assert_close(grads[0], grads[1] * bound / grads[1].norm(), rtol=1e-4, atol=0)


def test_decay_follows_its_schedule_in_the_groups_that_decay() -> None:
    task = make()
    optimizer = build_optimizer(task, OptimizerConfig(weight_decay=0.04))
    task.before_step(STEPS // 2, optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.22), 0.0]
