"""What a DINO task is made of: student and teacher, their modes, their passes, and what cannot serve."""

import pytest
import torch
from reference.tiny_dino import tiny_dino
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import create_model
from skipless.optim import SOAP, OptimizerConfig, build_optimizer
from skipless.tasks import DINO, DINOConfig

SMALL = DINOConfig(out_dim=16, hidden_dim=8, bottleneck_dim=4)


def crops(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, 1, n, n, generator=generator) for n in (8, 8, 4, 4, 4)]


def rates(backbone: nn.Module) -> list[float]:
    return [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]


def test_the_teacher_starts_as_the_initialised_student_and_shares_nothing() -> None:
    vit = create_model(
        "vit_tiny_patch16_224", init=SkiplessInit(c=3.0), depth=2, num_classes=0, dynamic_img_size=True, seed=0
    )
    task = DINO(vit, SMALL, total_steps=4, steps_per_epoch=2)
    for teacher, student in ((task.model, task.student), (task.teacher_head, task.student_head)):
        for one, other in zip(teacher.parameters(), student.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.data_ptr() != other.data_ptr()
            assert not one.requires_grad
    values = torch.linalg.svdvals(task.model.blocks[0].attn.proj.weight)
    torch.testing.assert_close(values, torch.full_like(values, 3.0), rtol=1e-4, atol=0)


def test_a_seed_decides_the_head_and_nothing_else() -> None:
    heads = [tiny_dino().student_head.state_dict() for _ in range(2)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    vit = tiny_dino().model
    other = DINO(vit, SMALL, total_steps=4, steps_per_epoch=2, seed=1).student_head.state_dict()
    same = DINO(vit, SMALL, total_steps=4, steps_per_epoch=2, seed=0).student_head.state_dict()
    assert not torch.equal(other["last_layer.weight_v"], same["last_layer.weight_v"])


def test_drop_path_is_where_the_skips_are_and_on_the_student_alone() -> None:
    assert rates(tiny_dino(skip=True, drop_path=0.1).student) == [0.1, 0.1]  # from 0 in the first of two blocks
    assert rates(tiny_dino(skip=False, drop_path=0.1).student) == []
    assert rates(tiny_dino(skip=True, drop_path=0.1).model) == []
    vit = create_model("vit_tiny_patch16_224", sub_blocks=("attn",), depth=3, num_classes=0, dynamic_img_size=True)
    half = DINO(vit, SMALL, total_steps=4, steps_per_epoch=2).student
    assert rates(half) == [pytest.approx(0.05), pytest.approx(0.1)]
    assert isinstance(half.blocks[2].drop_path1, nn.Identity)


def test_the_teacher_never_drops_out() -> None:
    vit = VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=0, embed_dim=16, depth=1, num_heads=2, proj_drop_rate=0.5,
        dynamic_img_size=True,
    )  # fmt: skip
    task = DINO(vit, SMALL, total_steps=4, steps_per_epoch=2).train()
    image = torch.rand(4, 1, 8, 8)
    assert torch.equal(task.model(image), task.model(image))
    assert not torch.equal(task.student(image), task.student(image))


def test_crops_of_one_size_go_through_together_and_come_out_in_order() -> None:
    task = tiny_dino(drop_path=0.0)
    seen: dict[str, list[tuple[int, ...]]] = {"student": [], "model": []}
    for name, shapes in seen.items():
        module = getattr(task, name)
        module.register_forward_pre_hook(lambda _, inputs, shapes=shapes: shapes.append(tuple(inputs[0].shape)))
    batch = crops(3)
    loss = task(batch)["loss"]
    assert seen == {"student": [(6, 1, 8, 8), (9, 1, 4, 4)], "model": [(6, 1, 8, 8)]}
    student = [task.student_head(task.student(crop)) for crop in batch]
    teacher = [task.teacher_head(task.model(crop)) for crop in batch[:2]]
    task.criterion.eval()
    torch.testing.assert_close(loss, task.criterion(student, teacher, teacher_temp=task.schedules.teacher_temp(0)))


def test_evaluation_leaves_the_centre_to_training() -> None:
    task = tiny_dino()
    task.eval()(crops())
    task.criterion.update_center_()
    assert task.criterion.center.eq(0).all()


@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_a_frozen_last_layer_stays_and_its_first_gradient_is_its_first_step(name: str) -> None:
    task = tiny_dino(watch_every=0)
    optimizer = build_optimizer(task, OptimizerConfig(name=name, lr=0.01, weight_decay=0.04))
    layer = task.student_head.last_layer
    start = layer.weight_v.detach().clone()
    changed = []
    for step in range(7):
        task.before_step(step, optimizer)
        task(crops())["loss"].backward()
        task.before_update(step)
        optimizer.step()
        optimizer.zero_grad()
        task.after_step(step)
        changed.append(not torch.equal(layer.weight_v, start))
    late = int(isinstance(optimizer, SOAP))  # whose first gradient moves nothing
    assert changed == [False] * (4 + late) + [True] * (3 - late)  # four steps an epoch


def test_backbones_compile_in_place() -> None:
    task, plain = tiny_dino(drop_path=0.0), tiny_dino(drop_path=0.0)
    task.compile_backbones_(backend="eager")
    assert task.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(task(crops())["loss"], plain(crops())["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 10, "dynamic_img_size": True}, "classifier of 10 classes; build it with num_classes=0"),
        ({"num_classes": 0}, "one image size only; build it with dynamic_img_size=True"),
    ],
)
def test_backbones_that_cannot_serve_are_refused(changes: dict, message: str) -> None:
    vit = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1, **changes)
    with pytest.raises(InputError, match=message):
        DINO(vit, SMALL, total_steps=4, steps_per_epoch=2)


def test_a_backbone_with_batch_statistics_is_refused() -> None:
    with pytest.raises(InputError, match="has BatchNorm, whose running statistics the teacher"):
        DINO(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()), SMALL, total_steps=4, steps_per_epoch=2, in_dim=16)


def test_a_backbone_without_a_width_needs_one() -> None:
    with pytest.raises(InputError, match="give in_dim"):
        DINO(nn.Flatten(), SMALL, total_steps=4, steps_per_epoch=2)
    assert DINO(nn.Flatten(), SMALL, total_steps=4, steps_per_epoch=2, in_dim=16)([torch.rand(2, 1, 4, 4)] * 2)
