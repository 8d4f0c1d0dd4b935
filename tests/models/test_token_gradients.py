"""The gradient that reaches tokens, against autograd by hand."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from reference.tiny_dino import tiny_dino
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from skipless.errors import InputError
from skipless.models import block_views, create_model, token_gradients
from skipless.models.vit_view import embed, find_vit
from skipless.tasks import DINO

LABELS = torch.tensor([0, 2, 1])


def vit(**options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5, "seed": 0}
    return create_model("vit_tiny_patch16_224", **{**sizes, **options})


def pictures() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def rms(x: Tensor) -> float:
    return math.sqrt(sum(value**2 for value in x.flatten().tolist()) / x.numel())


def by_hand(model: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of every block and their gradients."""
    model.eval()
    x, outputs = embed(find_vit(model), images), []
    for view in block_views(model):
        x = view.block(x)
        outputs.append(x)
    timms: VisionTransformer = model  # pyright: ignore[reportAssignmentType]
    value = cross_entropy(timms.forward_head(timms.norm(x)), LABELS)
    return outputs, list(torch.autograd.grad(value, outputs))


OPTIONS = [
    {"skip": True},
    {"skip": False},
    {"skip": False, "reg_tokens": 2},
    {"skip": False, "class_token": False, "global_pool": "avg"},
    {"skip": True, "global_pool": "avg"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_autograd_by_hand(options: dict) -> None:
    model = vit(**options).double()
    images = pictures().double()
    found = token_gradients(model, lambda batch: cross_entropy(model(batch), LABELS), images)
    outputs, gradients = by_hand(model, images)
    prefix = find_vit(model).prefix
    assert (found.passes, found.images) == (1, 3)
    for block, view, x, g in zip(found.blocks, block_views(model), outputs, gradients, strict=True):
        assert block.name == view.name
        assert block.patches == pytest.approx(rms(g[:, prefix:]), rel=1e-10)
        assert block.relative_patches == pytest.approx(rms(g[:, prefix:]) * rms(x[:, prefix:]), rel=1e-10)
        if options.get("class_token", True):
            assert block.class_token == pytest.approx(rms(g[:, 0]), rel=1e-10)
            assert block.relative_class_token == pytest.approx(rms(g[:, 0]) * rms(x[:, 0]), rel=1e-10)
        else:
            assert block.class_token is block.relative_class_token is None
    averaged = options.get("global_pool") == "avg"
    assert found.unreached == (() if averaged else ("blocks.2",))
    assert (found.blocks[-1].class_token == 0) == (options == {"skip": True, "global_pool": "avg"})


def crops(images: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(images, 1, n, n, generator=generator) for n in (8, 8, 4, 4)]


def dinos_by_hand(task: DINO) -> list[tuple[float, float]]:
    """Root mean squares at class tokens and patches after each block, over both passes of the student."""
    task.eval()
    kept: list[list[Tensor]] = [[], []]
    hooks = [
        view.block.register_forward_hook(lambda _, __, out, index=index: kept[index].append(out))
        for index, view in enumerate(block_views(task.student))
    ]
    loss = task(crops())["loss"]
    for hook in hooks:
        hook.remove()
    found = []
    for outputs in kept:
        grads = torch.autograd.grad(loss, outputs, retain_graph=True)
        own = torch.cat([g[:, 0].flatten() for g in grads])
        found.append((rms(own), rms(torch.cat([g[:, 1:].flatten() for g in grads]))))
    return found


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("objective", [{}, {"pooling": "mean"}, {"patch_loss": 1.0, "mask_share": 1.0}], ids=str)
def test_of_dino_the_class_token_alone_leaves_the_last_blocks_patches_out(skip: bool, objective: dict) -> None:
    task = tiny_dino(skip=skip, **objective)
    found = token_gradients(task.eval().student, task, crops())
    assert (found.passes, found.images) == (2, 12)
    assert found.loss == task(crops())["loss"].item()
    for block, (class_token, patches) in zip(found.blocks, dinos_by_hand(task), strict=True):
        assert block.class_token == pytest.approx(class_token, rel=1e-5)
        assert block.patches == pytest.approx(patches, rel=1e-5)
    last = found.blocks[-1]
    assert (last.patches == 0) == (not objective)
    assert (last.class_token == 0) == (objective == {"pooling": "mean"})
    assert found.blocks[0].patches > 0
    assert ("! the patch outputs of blocks.1 get no gradient at all" in str(found)) == (not objective)


def test_nothing_is_left_behind() -> None:
    task = tiny_dino(drop_path=0.1)
    state = {name: value.clone() for name, value in task.state_dict().items()}
    token_gradients(task.eval().student, task, crops())
    task.after_step(0)  # would move the centre if outputs had been observed
    assert torch.equal(task.criterion.center, state["criterion.center"])
    assert all(parameter.grad is None for parameter in task.parameters())
    model = vit().train()
    token_gradients(model, lambda batch: model(batch).mean(), pictures())
    assert model.training
    assert not any(view.block._forward_hooks for view in block_views(model))


def test_frozen_compiled_and_checkpointed_models_serve() -> None:
    def measured(model: nn.Module) -> list[float]:
        found = token_gradients(model, lambda batch: cross_entropy(model(batch), LABELS), pictures())
        return [value for block in found.blocks for value in (block.class_token or 0.0, block.patches)]

    expected = measured(vit())
    assert measured(vit().requires_grad_(False)) == pytest.approx(expected)
    checkpointed = vit()
    checkpointed.set_grad_checkpointing()  # pyright: ignore[reportCallIssue]
    assert measured(checkpointed.train()) == pytest.approx(expected)
    assert checkpointed.grad_checkpointing
    compiled = vit()
    for view in block_views(compiled):
        view.block.compile(backend="eager")
    with torch.no_grad():
        compiled(pictures())
    assert measured(compiled) == pytest.approx(expected)
    with torch.no_grad():
        assert measured(vit()) == pytest.approx(expected)


def test_what_has_no_gradient_is_refused(unchecked: None) -> None:
    model, other = vit(), vit()
    with pytest.raises(InputError, match="does not depend on the blocks of `VisionTransformer`"):
        token_gradients(model, lambda batch: other(batch).mean(), pictures())
    with pytest.raises(InputError, match="does not depend on the blocks"):
        token_gradients(model, lambda batch: model(batch).detach().mean(), pictures())
    with pytest.raises(InputError, match=r"the loss has shape \(3, 5\): give a tensor of one number"):
        token_gradients(model, model, pictures())
    with pytest.raises(InputError, match=r"the loss has type float: give a tensor"):
        token_gradients(model, lambda batch: {"loss": 1.0}, pictures())
    with pytest.raises(InputError, match="has 2 vision transformers, not one"):
        token_gradients(tiny_dino(), lambda batch: batch.mean(), pictures())


def test_the_picture_shows_zeros_where_a_log_axis_has_no_place_for_them() -> None:
    model = vit()
    found = token_gradients(model, lambda batch: cross_entropy(model(batch), LABELS), pictures())
    axes = Figure().subplots()
    found._draw(axes)
    assert axes.get_yscale() == "log"
    assert axes.get_legend_handles_labels()[1] == ["class token", "patches", "exactly 0"]
    assert repr(found).startswith("<TokenGradients: at patches ")
