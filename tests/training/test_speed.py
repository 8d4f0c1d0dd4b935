"""`--compile` and `--profile`: what they may change, and what they write."""

import json
import shutil
from functools import partialmethod
from pathlib import Path

import pytest
import timm
import torch
from reference.tiny_run import lines, same, tensors, tiny_task, train
from torch import nn

from skipless.errors import InputError
from skipless.tasks import Supervised, SupervisedConfig
from skipless.training.loop.engine import _compile_


def test_a_profile_is_a_trace_of_the_steps_and_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    train(tmp_path / "profiled", profile=True)
    trace = json.loads((tmp_path / "profiled" / "profile" / "trace.json").read_text())
    named = {event.get("name") for event in trace["traceEvents"]}
    assert "aten::addmm" in named
    assert same(tensors(tmp_path / "plain"), tensors(tmp_path / "profiled"))


def test_a_machine_without_a_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="--compile on a CPU needs a C\\+\\+ compiler"):
        train(tmp_path, compile=True)


@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own doings
def test_no_block_goes_uncompiled_for_its_rate_of_drop_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve blocks have twelve rates, and torch gives up at the ninth version of one function."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=8, num_heads=1, depth=12, drop_path_rate=0.1
    )
    before = torch._dynamo.config.recompile_limit
    try:
        _compile_(Supervised(model, classes=10), torch.device("cpu"))
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    finally:
        torch._dynamo.config.recompile_limit = before
        torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own doings, of which an error would stop it
def test_compiled_blocks_train_alike(tmp_path: Path) -> None:
    for name, compiled in (("eager", False), ("compiled", True)):
        task = tiny_task(SupervisedConfig(), dropout=0.0)
        train(tmp_path / name, task=task, compile=compiled, log_every=1)
        assert (task.model.blocks[0]._compiled_call_impl is not None) == compiled
    for eager, compiled in zip(lines(tmp_path / "eager"), lines(tmp_path / "compiled"), strict=True):
        if "loss" in eager:
            assert eager["loss"] == pytest.approx(compiled["loss"], abs=1e-4)
    assert tensors(tmp_path / "eager").keys() == tensors(tmp_path / "compiled").keys()
