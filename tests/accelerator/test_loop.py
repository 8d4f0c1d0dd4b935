"""The loop on the device: resuming, generators, batches in page-locked memory, one shard, compilation, memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from reference.tiny_dino import train_dino
from reference.tiny_run import digits, lines, schedule, tensors, tiny_task, train
from reference.tolerances import assert_near

from skipless.data import EvalLoader
from skipless.evaluators import top1
from skipless.models import create_model, initialize_
from skipless.optim import SOAP

OPTIMIZERS = ["AdamW", "SOAP", "Muon"]


class Interrupted(Exception):
    """Stands for a process that dies."""


def interrupted(step: int) -> float:
    if step == 9:
        raise Interrupted
    return schedule(step)


def assert_same_tensors(one: Path, other: Path, device: torch.device) -> None:
    """To the bit on a CPU; kernels of an accelerator may add up in another order each time."""
    found, expected = tensors(one), tensors(other)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if device.type == "cpu" or not value.is_floating_point():
            assert torch.equal(value, expected[name]), name
        else:
            assert_near(value, expected[name])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_ends_as_an_uninterrupted_one(optimizer: str, device, tmp_path: Path) -> None:
    train(tmp_path / "whole", optimizer, device=device.type)
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", optimizer, device=device.type, schedule=interrupted)
    train(tmp_path / "cut", optimizer, device=device.type)
    assert_same_tensors(tmp_path / "cut", tmp_path / "whole", device)


def test_dino_trains(device, tmp_path: Path) -> None:
    train_dino(tmp_path, device=device.type)
    assert any("watch" in line for line in lines(tmp_path))


def test_weights_depend_on_the_seed_not_on_the_device(device) -> None:
    sizes = {"depth": 2, "img_size": 32, "embed_dim": 24, "num_heads": 2}
    here = create_model("vit_tiny_patch16_224", **sizes, seed=0)
    there = create_model("vit_tiny_patch16_224", **sizes, seed=1).to(device)
    initialize_(there, generator=torch.Generator().manual_seed(0))
    again = create_model("vit_tiny_patch16_224", **sizes, seed=1)
    initialize_(again, generator=torch.Generator().manual_seed(0))
    for (name, one), (_, other) in zip(there.blocks.named_parameters(), again.blocks.named_parameters(), strict=True):
        assert one.device.type == device.type, name
        assert_near(one.detach(), other.detach())
    assert here.blocks[0].attn.qkv.weight.shape == there.blocks[0].attn.qkv.weight.shape


def test_batches_in_page_locked_memory_arrive_whole(device) -> None:
    model, data = tiny_task().model.eval(), digits(88, shift=0)
    expected = top1(model, EvalLoader(data, batch_size=7))
    found = top1(model.to(device), EvalLoader(data, batch_size=7, pin_memory=device.type == "cuda"))
    assert found == pytest.approx(expected, rel=1e-4)


def test_one_process_needs_no_process_group(device, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process group for one process")

    monkeypatch.setattr(dist, "init_process_group", refuse)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    train(tmp_path, device=device.type, strategy="fsdp", epochs=1)


@pytest.mark.slow
def test_one_shard_trains_as_the_whole(device, tmp_path: Path) -> None:
    script = Path(__file__).with_name("one_shard.py")
    given = [sys.executable, "-W", "ignore", str(script), str(torch.zeros(1, device=device).device), str(tmp_path)]
    done = subprocess.run(given, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    found, expected = (torch.load(tmp_path / name) for name in ("sharded.pt", "whole.pt"))
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, in tracing
def test_a_compiled_run_trains_as_an_eager_one(device, tmp_path: Path) -> None:
    targets = tiny_task(dropout=0.0).config
    for name, compiled in (("eager", False), ("compiled", True)):
        task = tiny_task(targets, dropout=0.0)
        train(tmp_path / name, "SOAP", task=task, device=device.type, compile=compiled, epochs=1, log_every=1)
    found, expected = (
        [line["loss"] for line in lines(tmp_path / name) if "loss" in line] for name in ("compiled", "eager")
    )
    assert_near(torch.tensor(found), torch.tensor(expected))


def test_channels_last_changes_rounding_alone(device) -> None:
    model = (
        create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0).to(device).eval()
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    expected = model(images)
    assert_near(model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)), expected)


def test_soap_keeps_its_state_on_the_device_and_little_besides(device) -> None:
    weight = torch.nn.Parameter(torch.zeros(512, 512, device=device))
    optimizer = SOAP([weight], lr=1e-3, precondition_frequency=2)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(5):
        weight.grad = torch.randn(512, 512).to(device)
        optimizer.step()
    held = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
    size = weight.numel() * 4
    assert {tensor.device.type for tensor in held} == {device.type}
    assert sum(tensor.numel() * 4 for tensor in held) == 6 * size  # two moments, two factors, two bases
    if device.type == "cuda":  # the first step decomposes in float64; the other 8 are weight, gradient, state
        assert torch.cuda.max_memory_allocated() < (8 + 24) * size
