"""The patch loss against iBOT's formulas in a loop, its masks, and what must go on as without it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from reference.ibot import losses_of
from reference.tiny_dino import tiny_dino
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from skipless.data.loading.loader import Order
from skipless.errors import InputError
from skipless.optim import OptimizerConfig, build_optimizer
from skipless.tasks import DINO, DINOConfig
from skipless.tasks.dino import PatchLoss
from skipless.tasks.dino.masks import Masks, draw_masks

MASKS = {"patch_loss": 0.7, "mask_share": 0.8, "mask_ratio": 0.4, "mask_spread": 0.2}


def batches(count: int = 3, images: int = 3, dtype: torch.dtype = torch.float64) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield [torch.rand(images, 1, n, n, generator=generator, dtype=dtype) for n in (8, 8, 4, 4)]


@pytest.mark.parametrize("shape", ["block", "random"])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_equals_a_loop_over_patches_step_by_step(pooling: str, shape: str) -> None:
    """Loss, its parts, every gradient and both centres."""
    task = tiny_dino(drop_path=0.0, pooling=pooling, mask_shape=shape, teacher_patch_temp=0.05, **MASKS).double()
    optimizer = build_optimizer(task, OptimizerConfig(lr=0.01, weight_decay=0.04))
    centers = {name: torch.zeros(32, dtype=torch.float64) for name in ("image", "patch")}
    trained = {name: value for name, value in task.named_parameters() if value.requires_grad}
    for step, crops in enumerate(batches()):
        task.before_step(step, optimizer)
        masks = draw_masks(task.config, (4, 4), seed=0, step=step, rows=range(3), crops=2).view(2, 3, 16)
        assert masks.any()
        assert task.mask_token is not None
        image, patch, means = losses_of(
            (task.student, task.student_head),
            (task.model, task.teacher_head),
            crops,
            masks,
            task.mask_token,
            centers,
            temp=0.1,
            teacher_temp=task.schedules.teacher_temp(step),
            patch_temp=task.schedules.teacher_patch_temp(step),
            pooling=pooling,
        )
        expected = torch.autograd.grad(image + 0.7 * patch, list(trained.values()), allow_unused=True)
        found = task(crops)
        found["loss"].backward()
        assert found["loss"].item() == pytest.approx((image + 0.7 * patch).item(), abs=1e-10)
        assert found["image_loss"].item() == pytest.approx(image.item(), abs=1e-10)
        assert found["patch_loss"].item() == pytest.approx(patch.item(), abs=1e-10)
        for (name, value), gradient in zip(trained.items(), expected, strict=True):
            assert (value.grad is None) == (gradient is None), name
            if gradient is not None:
                close = 1e-6 if "pos_embed" in name else 1e-10  # timm resizes positions in float32
                torch.testing.assert_close(value.grad, gradient, rtol=0, atol=close, msg=name)
        task.before_update(step)
        optimizer.step()
        optimizer.zero_grad()
        task.after_step(step)
        centers = {name: 0.9 * value + 0.1 * means[name] for name, value in centers.items()}
        torch.testing.assert_close(task.criterion.center[0], centers["image"], rtol=0, atol=1e-10)
        assert task.patch_criterion is not None
        torch.testing.assert_close(task.patch_criterion.center[0], centers["patch"], rtol=0, atol=1e-10)


def test_a_weight_of_its_own_and_zero_is_the_papers_recipe() -> None:
    (crops,) = batches(1, dtype=torch.float32)
    plain, none = tiny_dino(drop_path=0.0), tiny_dino(drop_path=0.0, patch_loss=0.0)
    assert torch.equal(plain(crops)["loss"], none(crops)["loss"])
    assert sorted(plain(crops)) == ["loss", "teacher_entropy"]
    assert plain.state_dict().keys() == none.state_dict().keys()
    found = tiny_dino(drop_path=0.0, **MASKS | {"patch_loss": 2.5})(crops)
    torch.testing.assert_close(found["loss"], found["image_loss"] + 2.5 * found["patch_loss"])


def test_the_mask_token_is_the_tasks_and_is_trained() -> None:
    task = tiny_dino(**MASKS)
    assert set(task.state_dict()) - set(tiny_dino().state_dict()) == {"mask_token", "patch_criterion.center"}
    optimizer = build_optimizer(task, OptimizerConfig(lr=0.01, weight_decay=0.04))
    assert any(task.mask_token is p for group in optimizer.param_groups for p in group["params"])
    (crops,) = batches(1, dtype=torch.float32)
    task.before_step(0, optimizer)
    task(crops)["loss"].backward()
    norms = task.before_update(3)["grad_norm"]
    optimizer.step()
    task.after_step(3)  # measures collapse, with the norms of gradients by part
    assert norms.isfinite()
    assert task.mask_token is not None
    assert task.mask_token.abs().sum() > 0


def test_a_batch_without_masks_has_no_patch_loss_and_a_gradient_for_every_process() -> None:
    task = tiny_dino(drop_path=0.0, **MASKS | {"mask_share": 1e-9})
    (crops,) = batches(1, dtype=torch.float32)
    found = task(crops)
    found["loss"].backward()
    assert found["patch_loss"] == 0
    assert task.mask_token is not None
    assert task.mask_token.grad is not None  # else DistributedDataParallel waits for it
    torch.testing.assert_close(found["loss"], tiny_dino(drop_path=0.0)(crops)["loss"])


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_images_mask_depends_on_its_place_in_the_step_alone(
    accumulation: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masks(rank: int, processes: int, accumulation: int) -> dict[tuple[int, int], Tensor]:
        task = tiny_dino(**MASKS)
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: processes > 1)
        monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: processes)
        order = iter(Order(24, 12, 0, accumulation=accumulation, rank=rank, world_size=processes))
        found = {}
        for step in range(2):
            task._step, task._rows = step, 0
            for _ in range(accumulation):
                indices = next(order).indices.tolist()
                drawn = task._masks([torch.zeros(len(indices), 1, 8, 8)] * 2).masked.view(2, len(indices), -1)
                found |= {(step, index): drawn[:, place] for place, index in enumerate(indices)}
        return found

    whole = masks(0, 1, 1)
    shared = {key: mask for rank in range(processes) for key, mask in masks(rank, processes, accumulation).items()}
    assert whole.keys() == shared.keys()
    assert all(torch.equal(whole[key], shared[key]) for key in whole)
    assert len({tuple(mask.flatten().tolist()) for mask in whole.values()}) > 12


def draw(grid: tuple[int, int], images: int = 400, seed: int = 0, step: int = 0, **changes: Any) -> np.ndarray:
    config = DINOConfig(**{"patch_loss": 1.0, **changes})
    return draw_masks(config, grid, seed=seed, step=step, rows=range(images), crops=2).view(-1, *grid).numpy()


@pytest.mark.parametrize("grid", [(14, 14), (6, 6), (4, 7)])
@pytest.mark.parametrize("shape", ["block", "random"])
def test_as_many_as_asked_are_masked(grid: tuple[int, int], shape: str) -> None:
    share = draw(grid, mask_shape=shape).mean((1, 2))
    masked = share[share > 0]
    assert len(masked) / len(share) == pytest.approx(0.5, abs=0.06)
    assert masked.max() <= 0.5 + 1e-9
    assert 0.15 < masked.mean() <= 0.3 + 1e-2  # blocks and whole patches fall short of it, never above
    if shape == "random":
        fixed = draw(grid, mask_shape=shape, mask_share=1.0, mask_ratio=0.25, mask_spread=0.0).sum((1, 2))
        assert set(fixed) == {int(0.25 * grid[0] * grid[1])}


def test_blocks_hang_together_and_single_patches_do_not() -> None:
    def neighbours(masks: np.ndarray) -> float:
        return float((masks[:, 1:] & masks[:, :-1]).sum() / masks.sum())

    block, single = (draw((14, 14), mask_shape=shape) for shape in ("block", "random"))
    assert neighbours(block) > 1.5 * neighbours(single)


def test_masks_are_a_function_of_seed_and_step() -> None:
    assert (draw((6, 6)) == draw((6, 6))).all()
    assert (draw((6, 6)) != draw((6, 6), seed=1)).any()
    assert (draw((6, 6)) != draw((6, 6), step=1)).any()


def test_a_grid_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"mask_ratio=0\.3 of 1 x 1 patches is less than one"):
        draw((1, 1))


def test_weights_are_those_of_a_mean_over_images_of_means_over_their_patches() -> None:
    masked = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    masks = Masks.of(masked)
    assert masks.index.tolist() == [0, 1, 8]
    torch.testing.assert_close(masks.weights, torch.tensor([1 / 6, 1 / 6, 1 / 3], dtype=torch.float64))
    assert Masks.of(masked[1:2]).weights.tolist() == []


def test_half_precision_is_computed_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 16, generator=generator).bfloat16() for _ in range(2))
    weights, loss = torch.full((4,), 0.25), PatchLoss(16)
    expected = loss(student.float(), teacher.float(), weights, teacher_temp=0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher, weights, teacher_temp=0.04)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    with pytest.raises(InputError, match="PatchLoss\\(out_dim=1"):
        PatchLoss(1)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [MASKS, {"pooling": "mean"}, {"pooling": "mean", **MASKS}], ids=str)
def test_backbones_compile_in_place_and_checkpoint(changes: dict) -> None:
    (crops,) = batches(1, dtype=torch.float32)
    plain = tiny_dino(drop_path=0.0, **changes)
    expected = plain(crops)["loss"]
    expected.backward()
    compiled, kept = tiny_dino(drop_path=0.0, **changes), tiny_dino(drop_path=0.0, **changes)
    compiled.compile_backbones_(backend="eager")
    kept.student.set_grad_checkpointing()  # pyright: ignore[reportCallIssue]
    for task in (compiled, kept):
        assert task.state_dict().keys() == plain.state_dict().keys()
        loss = task(crops)["loss"]
        loss.backward()
        torch.testing.assert_close(loss, expected)
        for one, other in zip(task.student.parameters(), plain.student.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


class Wrapped(nn.Module):
    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :8]


@pytest.mark.parametrize("asked", [{"pooling": "mean"}, {"patch_loss": 1.0}])
def test_a_backbone_without_known_patch_tokens_is_refused(asked: dict) -> None:
    (name,) = asked
    with pytest.raises(InputError, match=rf"{name}=\S+ needs patch tokens, and those of `Wrapped` are not known"):
        DINO(Wrapped(), DINOConfig(out_dim=8, hidden_dim=4, **asked), total_steps=4, steps_per_epoch=2)


@pytest.mark.parametrize(
    ("built", "asked", "message"),
    [
        ({"patch_drop_rate": 0.5}, {"patch_loss": 1.0}, "drops patches at random; build it with patch_drop_rate=0"),
        ({"global_pool": "map"}, {"pooling": "mean"}, "pools by attention; build it with global_pool='token'"),
    ],
)
def test_vits_that_cannot_serve_are_refused(built: dict, asked: dict, message: str) -> None:
    vit = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, num_classes=0, dynamic_img_size=True, **built
    )
    with pytest.raises(InputError, match=message):
        DINO(vit, DINOConfig(out_dim=8, hidden_dim=4, **asked), total_steps=4, steps_per_epoch=2)


def test_global_crops_of_two_sizes_are_refused() -> None:
    images = [torch.rand(2, 1, n, n) for n in (8, 4, 4)]
    with pytest.raises(InputError, match="global crops of several sizes cannot be masked"):
        tiny_dino(**MASKS)(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "max"}, "pooling='max': choose from class, mean"),
        ({"patch_loss": -1.0}, r"patch_loss=-1\.0: give a weight of 0 or more"),
        ({"patch_loss": float("nan")}, "patch_loss=nan: give a weight of 0 or more"),
        ({"mask_ratio": 0.5}, r"mask_ratio=0\.5 changes nothing without patch_loss: give patch_loss=1, too"),
        ({"teacher_patch_temp": 0.05}, r"teacher_patch_temp=0\.05 changes nothing without patch_loss"),
        ({"patch_loss": 1.0, "mask_share": 0.0}, r"mask_share=0\.0 must lie above 0"),
        ({"patch_loss": 1.0, "mask_ratio": 0.1}, r"mask_ratio=0\.1, mask_spread=0\.2: give a share between"),
        ({"patch_loss": 1.0, "mask_ratio": 1.0}, r"mask_ratio=1\.0, mask_spread=0\.2: give a share between"),
        ({"patch_loss": 1.0, "mask_shape": "rand"}, "mask_shape='rand': choose from block, random"),
        ({"patch_loss": 1.0, "teacher_patch_temp": 0.0}, r"teacher_patch_temp=0\.0 must be above 0"),
    ],
)
def test_bad_settings_are_quoted(arguments: dict, message: str, unchecked: None) -> None:
    with pytest.raises(InputError, match=message):
        DINOConfig(**arguments)


def test_the_patches_temperature_warms_up_as_the_other_does() -> None:
    config = DINOConfig(patch_loss=1.0, teacher_patch_temp=0.07, warmup_teacher_temp_epochs=4)
    schedules = config.schedules(100, 10)
    assert [schedules.teacher_patch_temp(step) for step in (0, 30, 99)] == pytest.approx([0.04, 0.07, 0.07])
    assert schedules.teacher_temp(99) == 0.04
    own = DINOConfig(teacher_temp=0.06).schedules(100, 10)
    assert own.teacher_patch_temp(50) == own.teacher_temp(50) == 0.06
