"""TF32, autocast, loss scaling: what training's number formats must not reach, and training in each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference.tiny_run import lines, tiny_task, train
from reference.tolerances import TOLERANCE, assert_near
from torch import Tensor, nn

from skipless.conditioning import attn_jacobian, spectrum
from skipless.errors import InputError
from skipless.models import block_views, create_model
from skipless.optim import SOAP, OptimizerConfig, build_optimizer


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def stepped(device: torch.device, *, autocast: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    """A weight after some steps of SOAP."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(96, 64, generator=generator).to(device, dtype))
    optimizer = SOAP([weight], lr=0.01, precondition_frequency=2)
    for _ in range(6):
        weight.grad = torch.randn(96, 64, generator=generator).to(device, dtype)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            optimizer.step()
    return weight.detach()


def test_soap_does_not_use_tf32(device, request) -> None:
    expected = stepped(device)
    request.getfixturevalue("tf32")
    assert torch.equal(stepped(device), expected)


def test_autocast_does_not_reach_soap(device) -> None:
    assert torch.equal(stepped(device, autocast=True), stepped(device))


def test_soap_takes_the_steps_of_the_cpu(device) -> None:
    assert_near(stepped(device), stepped(torch.device("cpu")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soap_of_half_precision_weights_keeps_its_state_in_float32(dtype: torch.dtype, device) -> None:
    assert_near(stepped(device, dtype=dtype), stepped(torch.device("cpu"), dtype=dtype))


@pytest.mark.parametrize("skip", [False, True])
def test_a_spectrum_does_not_use_tf32(skip: bool, device, tf32) -> None:
    model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=48, num_heads=2, img_size=64, seed=0).to(device)
    x = torch.randn(17, 48, generator=torch.Generator().manual_seed(0)).to(device)
    found = spectrum(attn_jacobian(block_views(model)[0], x, skip), method="lanczos")
    exact = spectrum(attn_jacobian(block_views(model.double())[0], x.double(), skip), method="dense")
    assert found.sigma_max.value == pytest.approx(exact.sigma_max.value, rel=TOLERANCE[torch.float32]["rtol"])


@pytest.mark.parametrize("optimizer", ["AdamW", "SOAP", "Muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_trains(precision: str, optimizer: str, device, tmp_path: Path) -> None:
    options = {"device": device.type, "precision": precision, "clip_norm": 1.0, "log_every": 5}
    if precision == "fp16" and device.type != "cuda":
        with pytest.raises(InputError, match="needs a CUDA device|no device"):
            train(tmp_path, optimizer, **options)
        return
    task = tiny_task(dropout=0.0)
    train(tmp_path, optimizer, task=task, **options)
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[-1] < losses[0]
    assert all(weight.isfinite().all() and weight.device.type == device.type for weight in task.parameters())
    assert all(weight.dtype == torch.float32 for weight in task.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon", "soap"])
def test_a_scaler_leaves_the_update_as_it_is(name: str, device) -> None:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.tensor([0, 1, 2, 3]).to(device)
    weights = []
    for scaled in (False, True):
        task = tiny_task(dropout=0.0).to(device).eval()
        optimizer = build_optimizer(task, OptimizerConfig(name=name, lr=1e-2, eps=1e-4), scaled=scaled)
        scaler = torch.amp.GradScaler(device.type, init_scale=65536.0, enabled=scaled)
        for _ in range(3):
            scaler.scale(task(images, labels)["loss"]).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(task.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.parameters()]))
    assert_near(weights[1], weights[0])
