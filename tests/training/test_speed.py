"""`--compile` and `--profile`: what they may change, and what they write."""

import json
import shutil
from pathlib import Path

import pytest
from reference.tiny_run import lines, same, tensors, tiny_task, train

from skipless.errors import InputError
from skipless.tasks import SupervisedConfig


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
