"""Bytes that autograd keeps, beside those that it hands to `saved_tensors_hooks`."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skipless.models import block_views, create_model
from skipless.planning import Keeping
from skipless.planning.activations import backbone_bytes, block_bytes, cast_bytes
from skipless.planning.work import workload
from skipless.recipes import dino, table1

IMAGES = 2


def kept(run: Callable[[], object], module: nn.Module) -> int:
    """Bytes of the distinct storages that a forward pass keeps, without the parameters' own."""
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            found.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def measured(model: nn.Module, keeping: Keeping, size: int) -> int:
    """On a CPU for real; as a GPU would, on tensors without memory: autocast's rules are the GPU's then."""
    fake = keeping.device == "cuda"
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext():
        model = model.to_empty(device=keeping.device)
        images = torch.randn(IMAGES, 3, size, size, device=keeping.device)
        torch.set_autocast_enabled(keeping.device, keeping.precision == "bf16")
        torch.set_autocast_dtype(keeping.device, torch.bfloat16)
        try:
            return kept(lambda: model(images), model)
        finally:
            torch.set_autocast_enabled(keeping.device, False)
            torch.clear_autocast_cache()


def built(skip: bool, fused: bool, **kwargs: object) -> nn.Module:
    with torch.device("meta"):
        model = create_model("vit_tiny_patch16_224", skip=skip, depth=3, num_classes=10, **kwargs)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_a_vit_on_a_cpu(precision, fused: bool, skip: bool) -> None:
    keeping = Keeping(precision, fused, device="cpu")
    model = built(skip, fused, img_size=112)
    planned = IMAGES * backbone_bytes(model, 112, keeping) + cast_bytes(model, keeping)
    assert planned == pytest.approx(measured(model, keeping, 112), rel=0.01)


@pytest.mark.parametrize("skip", [True, False])
def test_a_vit_under_the_autocast_of_a_gpu(skip: bool) -> None:
    keeping = Keeping("bf16", fused=False, device="cuda")
    model = built(skip, fused=False)
    planned = IMAGES * backbone_bytes(model, 224, keeping) + cast_bytes(model, keeping)
    assert planned == pytest.approx(measured(model, keeping, 224), rel=0.01)


def test_gated_mlp_and_layer_scale() -> None:
    import timm.layers

    keeping = Keeping("fp32", device="cpu")
    model = built(True, True, img_size=112, mlp_layer=timm.layers.SwiGLU, init_values=1e-5)
    assert IMAGES * backbone_bytes(model, 112, keeping) == pytest.approx(measured(model, keeping, 112), rel=0.01)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_maps_of_their_own_cast_their_input_each(device) -> None:
    """timm's SwiGLU has a linear map for gates and one for values, which fused maps do not."""
    import timm.layers

    keeping = Keeping("bf16", fused=False, device=device)
    model = built(True, False, img_size=112, mlp_layer=timm.layers.SwiGLU)
    planned = IMAGES * backbone_bytes(model, 112, keeping) + cast_bytes(model, keeping)
    assert planned == pytest.approx(measured(model, keeping, 112), rel=0.01)


class Alive(TorchDispatchMode):
    """Storages made meanwhile; checkpointing keeps what no hook is shown."""

    def __init__(self, before: set[int]) -> None:
        super().__init__()
        self._before = before
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata in self._before:  # a view
                    continue
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def bytes(self) -> int:
        return sum(size for reference, size in self._made.values() if not reference.expired())


@pytest.mark.parametrize("skip", [True, False])
def test_checkpointing_keeps_inputs_and_computes_one_block_at_a_time(skip: bool) -> None:
    model = built(skip, True, img_size=112).to_empty(device="cpu")
    keeping = Keeping("fp32", checkpointing=True, device="cpu")
    model.set_grad_checkpointing()
    images = torch.randn(IMAGES, 3, 112, 112, requires_grad=True)
    before = {tensor.untyped_storage()._cdata for tensor in (images, *model.parameters())}
    with Alive(before) as alive:
        loss = model(images).sum()
    again = max(block_bytes(view, 50, keeping) for view in block_views(model))
    planned = IMAGES * (backbone_bytes(model, 112, keeping) - again - 3 * 112**2 * 4)  # the images were there before
    assert loss.requires_grad
    assert planned == pytest.approx(alive.bytes(), rel=0.01)


def test_supervised_loss_and_dino_with_head_and_loss() -> None:
    keeping = Keeping("fp32", device="cpu")
    recipe = dino("scenes", data="scenes/").with_(model__init=None)
    masks = {"task__mask_shape": "random", "task__mask_share": 1.0, "task__mask_ratio": 0.25, "task__mask_spread": 0.0}
    for change in ({}, {"task__norm_last_layer": False}, {"task__pooling": "mean"}, {"task__patch_loss": 1.0, **masks}):
        changed = recipe.with_(**change)
        work, task = workload(changed), changed.build_task(10, 1)
        crops = [torch.randn(4, 3, size, size) for size in recipe.crops.sizes]
        planned = 4 * work.kept(keeping) + work.kept_once(keeping)
        assert planned == pytest.approx(kept(lambda task=task, crops=crops: task(crops)["loss"], task), rel=0.02)


def test_without_skips_checkpointing_keeps_half_of_the_stream_in_half_precision() -> None:
    sizes = {}
    for row in ("skip", "skipless"):
        work = workload(table1("paper", row, data="imagenet/"))
        sizes[row] = [work.kept(Keeping("bf16", checkpointing=checkpointing)) for checkpointing in (False, True)]
    assert sizes["skip"][0] == sizes["skipless"][0]  # a skip keeps nothing of its own
    assert sizes["skip"][1] - sizes["skipless"][1] == 11 * 197 * 768 * 2
