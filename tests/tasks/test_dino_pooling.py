"""What the head gets: the class token as in the paper, bit for bit as before, or the mean of the patch tokens."""

from dataclasses import replace

import pytest
import torch
from reference.tiny_dino import tiny_dino
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from skipless.tasks import DINO, DINOConfig
from skipless.tasks.dino.collapse import class_tokens


def crops(images: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(images, 1, n, n, generator=generator) for n in (8, 8, 4, 4)]


def grads(task: DINO, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in task.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("skip", [True, False])
def test_by_default_loss_and_gradients_are_those_of_the_papers_recipe_to_the_bit(skip: bool) -> None:
    """As the version before this option computed them, written out."""
    task = tiny_dino(skip=skip, drop_path=0.0)
    assert (task.config.pooling, task.config.patch_loss) == ("class", 0.0)
    batch = crops()
    found = task(batch)["loss"]
    with torch.no_grad():
        teacher = task.teacher_head(task.model(torch.cat(batch[:2])))
        targets = torch.softmax((torch.stack(teacher.chunk(2)) - task.criterion.center) / 0.04, dim=-1)
    features = torch.cat([task.student(torch.cat(batch[:2])), task.student(torch.cat(batch[2:]))])
    log_p = torch.log_softmax(torch.stack(task.student_head(features).chunk(4)) / 0.1, dim=-1)
    expected = -(targets * (log_p.sum(0) - log_p[:2])).sum(-1).mean(-1).sum() / 6
    assert torch.equal(found, expected)
    mine, theirs = grads(task, found), grads(task, expected)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def features(vit: VisionTransformer, images: Tensor) -> Tensor:
    return vit.forward_features(images)[:, vit.num_prefix_tokens :].mean(1)


def test_the_mean_is_that_of_the_normed_patch_tokens() -> None:
    task, batch = tiny_dino(drop_path=0.0, pooling="mean").double(), [crop.double() for crop in crops()]
    student = [task.student_head(features(task.student, crop)) for crop in batch]
    teacher = [task.teacher_head(features(task.model, crop)) for crop in batch[:2]]
    expected = task.criterion.eval()(student, teacher, teacher_temp=task.schedules.teacher_temp(0))
    found = task(batch)["loss"]
    torch.testing.assert_close(found, expected)
    mine, theirs = grads(task, found), grads(task, expected)
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], msg=name)
    assert task.state_dict().keys() == tiny_dino().state_dict().keys()
    assert task.model.state_dict().keys() == tiny_dino().model.state_dict().keys()


@pytest.mark.parametrize(
    "built",
    [
        {"class_token": False, "global_pool": "avg"},  # a norm after the mean
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"global_pool": "avg", "reg_tokens": 2},
    ],
    ids=str,
)
def test_a_backbone_that_pools_by_itself_gives_the_same_either_way(built: dict) -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=0, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True,
        **built,
    )  # fmt: skip
    config = DINOConfig(out_dim=8, hidden_dim=8, bottleneck_dim=4, drop_path=0.0)
    own = DINO(vit, config, total_steps=4, steps_per_epoch=2)
    mean = DINO(vit, replace(config, pooling="mean"), total_steps=4, steps_per_epoch=2)
    torch.testing.assert_close(own(crops())["loss"], mean(crops())["loss"])


def test_collapse_is_measured_on_what_the_head_gets() -> None:
    vit = tiny_dino().model
    images = crops()[0]
    found = class_tokens(vit, images, "mean")
    assert len(found) == 3
    torch.testing.assert_close(found[-1], features(vit, images))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(vit.norm(class_tokens(vit, images)[1]), class_tokens(vit, images)[2])  # pyright: ignore[reportCallIssue]
    x = vit.forward_intermediates(images, indices=[0], intermediates_only=True, output_fmt="NLC")[0]  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(found[0], x.mean(1))
