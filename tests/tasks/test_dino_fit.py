"""DINO in the training loop: killed and resumed, accumulated, on two processes, with either optimizer."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference.tiny_dino import BATCH, STEPS, Crops, tiny_dino, train_dino
from reference.tiny_run import die, killed, lines, same, tensors

from skipless.data.loading.loader import BatchKey
from skipless.errors import InputError
from skipless.optim import WarmupCosine
from skipless.training import TrainingDiverged

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


PATCHES = {"pooling": "mean", "patch_loss": 1.0}


@pytest.mark.parametrize(
    ("optimizer", "step", "changes"),
    [("adamw", 7, {}), ("soap", 6, {}), ("muon", 6, {}), ("adamw", 7, PATCHES), ("soap", 6, PATCHES)],
    ids=["adamw", "soap", "muon", "adamw, patches", "soap, patches"],
)
def test_killed_and_resumed_is_bit_identical(optimizer: str, step: int, changes: dict, tmp_path: Path) -> None:
    def dying(at: int) -> float:
        if at == step:
            die()
        return rate(at)

    rate = WarmupCosine(2e-3, STEPS, warmup_steps=4)
    train_dino(tmp_path / "whole", optimizer, tiny_dino(**changes))
    killed(lambda: train_dino(tmp_path / "cut", optimizer, tiny_dino(**changes), schedule=dying))
    train_dino(tmp_path / "cut", optimizer, tiny_dino(**changes))
    whole = tensors(tmp_path / "whole")
    assert same(whole, tensors(tmp_path / "cut"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert not whole["task/criterion.center"].eq(0).all()
    own = {"task/mask_token", "task/patch_criterion"} if changes else set()
    assert {name.split(".")[0] for name in whole if name.startswith("task/")} == {
        "task/model", "task/teacher_head", "task/student", "task/student_head", "task/criterion", *own
    }  # fmt: skip
    assert all(not whole[name].eq(0).all() for name in ("task/mask_token", "task/patch_criterion.center") if own)


def test_metrics_hold_what_the_collapse_monitors_found(tmp_path: Path) -> None:
    train_dino(tmp_path)
    logged = lines(tmp_path)
    seen = [line for line in logged if "watch" in line]
    assert [line["step"] for line in seen] == [4, 8, 12]
    assert all(len(line["watch"]["ranks"]) == 3 for line in seen)  # two blocks and the output
    assert list(seen[1]["watch"]["grad_norms"]) == ["rest", "blocks.0", "blocks.1", "head"]
    steps = [line for line in logged if "loss" in line]
    assert all({"loss", "teacher_entropy", "grad_norm", "lr"} <= line.keys() for line in steps)
    assert all(0 < line["teacher_entropy"] <= math.log(32) + 1e-5 for line in steps)


@pytest.mark.parametrize("changes", [{}, PATCHES], ids=["plain", "patches"])
def test_accumulation_changes_nothing_but_rounding(changes: dict, tmp_path: Path) -> None:
    for name, accumulation in (("whole", 1), ("parts", 4)):
        train_dino(tmp_path / name, "adamw", tiny_dino(drop_path=0.0, **changes), accumulation=accumulation)
    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    losses = [[line["loss"] for line in run if "loss" in line] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for part in ("criterion", "patch_criterion") if changes else ("criterion",):
        center = [tensors(tmp_path / name)[f"task/{part}.center"] for name in ("whole", "parts")]
        torch.testing.assert_close(*center, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, PATCHES], ids=["plain", "patches"])
def test_bf16_trains_without_skips(changes: dict, tmp_path: Path) -> None:
    task = tiny_dino(skip=False, watch_after=100, **changes)
    train_dino(tmp_path, task=task, precision="bf16")
    logged = lines(tmp_path)
    assert all(math.isfinite(line["loss"]) for line in logged if "loss" in line)
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert task.criterion.center.dtype == torch.float32


class SameImage(Crops):
    """What makes any teacher collapse: it cannot tell the samples apart."""

    def __getitems__(self, key: BatchKey) -> tuple[list[torch.Tensor]]:
        (crops,) = super().__getitems__(key)
        return ([torch.ones_like(crop) for crop in crops],)


def test_a_collapse_stops_the_run_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference.tiny_dino.Crops", SameImage)
    told = r"same output.* at step 8 of 12 .*the last checkpoint is of step 5; lower the teacher's temperature"
    with pytest.raises(TrainingDiverged, match=told):
        train_dino(tmp_path / "stop")
    result = json.loads((tmp_path / "stop" / "result.json").read_text())
    assert result["diverged"]
    assert "same output" in result["reason"]
    assert "stop" in lines(tmp_path / "stop")[-1]["watch"]
    with pytest.raises(TrainingDiverged, match="diverged when it was run: the teacher gives every sample"):
        train_dino(tmp_path / "stop")
    train_dino(tmp_path / "report", task=tiny_dino(on_collapse="report"))
    assert "same output" in lines(tmp_path / "report")[-1 - 1]["watch"]["fault"]


def test_nan_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"nan|not finite"):
        train_dino(tmp_path, schedule=lambda step: 1e30 if step == 4 else 1e-3)


TWO = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from reference.tiny_dino import tiny_dino, train_dino
for optimizer in ("adamw", "soap"):
    train_dino(Path(sys.argv[1]) / optimizer, optimizer, tiny_dino(drop_path=0.0))
    task = tiny_dino(drop_path=0.0, pooling="mean", patch_loss=1.0, mask_share=0.3)
    train_dino(Path(sys.argv[1]) / f"{optimizer}, patches", optimizer, task)
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path) -> None:
    """By either optimizer, in one start of two processes."""
    script = tmp_path / "train.py"
    script.write_text(TWO)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    for command, out in (([], "one"), (torchrun, "two")):
        subprocess.run(
            [sys.executable, *command, str(script), str(tmp_path / out)],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
    for optimizer in ("adamw", "soap", "adamw, patches", "soap, patches"):
        folders = [tmp_path / name / optimizer for name in ("one", "two")]
        one, two = ([line for line in lines(folder) if "loss" in line] for folder in folders)
        assert len(one) == STEPS // 3
        assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-5)
        centers = [tensors(folder)["task/criterion.center"] for folder in folders]
        torch.testing.assert_close(*centers, rtol=0, atol=1e-5)
        seen = [line["watch"] for line in lines(folders[1]) if "watch" in line]
        assert [watch["n"] for watch in seen] == [BATCH] * 3


def test_a_batch_without_local_crops_serves_and_one_crop_does_not() -> None:
    task = tiny_dino()
    images = torch.rand(4, 1, 8, 8)
    assert task([images, images])["loss"].isfinite()
    with pytest.raises(InputError, match="1 crops: DINO needs the teacher's 2"):
        task([images])
