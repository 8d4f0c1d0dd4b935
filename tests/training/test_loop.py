import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny_run import BATCH, CONFIG, SAMPLES, STEPS, digits, lines, same, schedule, tensors, tiny_task, train
from torch import nn

from skipless.data import Order
from skipless.errors import InputError
from skipless.tasks import Supervised, SupervisedConfig
from skipless.training import FitConfig, TrainingDiverged, fit
from skipless.training.run_folder.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def plain_task() -> Supervised:
    return tiny_task(SupervisedConfig(), dropout=0.0)


def weights(task: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


class Probe(Supervised):
    """A linear classifier whose loss turns into something else at one step."""

    def __init__(self, at: int, becomes: float) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10)
        self.at, self.becomes, self.step = at, becomes, 0

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.step += 1
        output = super().forward(images, labels)
        return output | {"loss": output["loss"] * self.becomes} if self.step == self.at else output


def test_it_is_the_training_loop_one_would_write(tmp_path: Path) -> None:
    fitted = plain_task()
    train(tmp_path, "SGD", task=fitted, dataset=digits(shift=0), clip_norm=0.5)
    task, data = plain_task(), digits(shift=0)
    optimizer = torch.optim.SGD(task.parameters())
    for step, key in zip(range(STEPS), Order(SAMPLES, BATCH, CONFIG.seed), strict=False):
        optimizer.param_groups[0]["lr"] = schedule(step)
        task(*data.__getitems__(key))["loss"].backward()
        nn.utils.clip_grad_norm_(task.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    assert same(weights(fitted), weights(task))


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, clip_norm: float | None) -> None:
    tasks = {accumulation: plain_task() for accumulation in (1, 4)}
    for accumulation, task in tasks.items():
        train(
            tmp_path / str(accumulation), "SGD", task=task, accumulation=accumulation, clip_norm=clip_norm,
            schedule=lambda step: 0.3,
        )  # fmt: skip
    whole, parts = weights(tasks[1]), weights(tasks[4])
    before = weights(plain_task())
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in before)
    assert not torch.allclose(whole["model.head.weight"], before["model.head.weight"], atol=1e-2)
    for one, other in zip(lines(tmp_path / "1"), lines(tmp_path / "4"), strict=True):
        assert one.keys() == other.keys()
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    train(tmp_path / "0", workers=0)
    train(tmp_path / "2", workers=2)
    assert same(tensors(tmp_path / "0"), tensors(tmp_path / "2"))
    assert lines(tmp_path / "0") == lines(tmp_path / "2")


def test_the_seed_changes_it(tmp_path: Path) -> None:
    train(tmp_path / "0", seed=0)
    train(tmp_path / "1", seed=1)
    assert not same(tensors(tmp_path / "0"), tensors(tmp_path / "1"))


def test_the_caller_s_random_state_does_not_change_it(tmp_path: Path) -> None:
    def drawing(step: int) -> float:
        torch.rand(step + 1)
        return schedule(step)

    train(tmp_path / "0")
    train(tmp_path / "1", schedule=drawing)
    assert same(tensors(tmp_path / "0"), tensors(tmp_path / "1"))


def test_every_micro_batch_of_every_step_draws_anew(tmp_path: Path) -> None:
    draws: list[tuple[float, ...]] = []

    class Drawing(Probe):
        def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            draws.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002
            return super().forward(images, labels)

    train(tmp_path / "0", task=Drawing(0, 0.0), accumulation=2)
    first = draws.copy()
    draws.clear()
    train(tmp_path / "1", task=Drawing(0, 0.0), accumulation=2)
    assert first == draws
    assert [len(set(column)) for column in zip(*first, strict=True)] == [2 * STEPS] * 3


def test_the_schedule_is_written_into_every_group(tmp_path: Path) -> None:
    task, rates = plain_task(), []
    first, *rest = task.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 7.0}, {"params": rest}], lr=9.0)
    optimizer.register_step_pre_hook(lambda o, *_: rates.append([group["lr"] for group in o.param_groups]))
    fit(task, digits(), optimizer, schedule, out=tmp_path, config=replace(CONFIG, log_every=1))
    assert rates == [[schedule(step)] * 2 for step in range(STEPS)]
    assert [line["lr"] for line in lines(tmp_path)] == [schedule(step) for step in range(STEPS)]


def test_metrics_are_means_over_the_steps_since_the_last_line(tmp_path: Path) -> None:
    train(tmp_path / "each", log_every=1)
    train(tmp_path / "four", log_every=4)
    each = [line for line in lines(tmp_path / "each") if "loss" in line]
    four = [line for line in lines(tmp_path / "four") if "loss" in line]
    assert [line["step"] for line in each] == list(range(1, STEPS + 1))
    assert [line["step"] for line in four] == [4, 8, 12, 15]  # the last window is short
    for line, end in zip(four, (4, 8, 12, 15), strict=True):
        start = (end - 1) // 4 * 4
        for name in ("loss", "accuracy"):
            assert line[name] == pytest.approx(math.fsum(one[name] for one in each[start:end]) / (end - start))
    assert [line["epoch"] for line in four] == [0.8, 1.6, 2.4, 3.0]
    assert [(line["step"], *line["evaluation"]) for line in lines(tmp_path / "each") if "evaluation" in line] == [
        (step, "top1", "top5", "loss", "n") for step in (5, 10, 15)
    ]
    raw = [json.loads(line) for line in (tmp_path / "four" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in raw]
    assert seconds == sorted(seconds)
    assert all(line["images_per_second"] > 0 for line in raw if "loss" in line)


@pytest.mark.parametrize(("every", "steps"), [(1, [5, 10, 15]), (2, [10, 15]), (0, [15])])
def test_evaluations_come_when_asked_for_and_at_the_end(tmp_path: Path, every: int, steps: list[int]) -> None:
    modes = []

    def evaluate(model: nn.Module) -> Mapping[str, float]:
        modes.append(type(model).__name__)
        model.eval()  # and forgets to put it back
        return {"top1": 50}

    task = tiny_task()
    result = train(tmp_path, evaluate_every=every, evaluate=evaluate, task=task)
    assert [line["step"] for line in lines(tmp_path) if "evaluation" in line] == steps
    assert set(modes) == {"VisionTransformer"}
    assert task.training
    assert task.model.training
    assert result.metrics == {"top1": 50.0}


def test_the_files_say_what_was_asked_and_what_came_out(tmp_path: Path) -> None:
    result = train(tmp_path, recipe={"optimizer": {"lr": 2e-3}, "sizes": (1, 2)}, seed=3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["recipe"] == {"optimizer": {"lr": 2e-3}, "sizes": [1, 2]}
    assert record["seed"] == 3
    assert record["fit"]["batch_size"] == BATCH
    assert record["samples"] == SAMPLES
    assert record["command"] == sys.argv
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["hardware"]["device"] == "cpu"
    assert record["parameters"] == sum(parameter.numel() for parameter in tiny_task().parameters())
    outcome = json.loads((tmp_path / "result.json").read_text())
    assert outcome["status"] == "finished"
    assert not outcome["diverged"]
    assert (outcome["steps"], outcome["top1"]) == (STEPS, result.metrics["top1"])


@pytest.mark.parametrize("becomes", [float("nan"), float("inf")])
def test_a_diverged_run_says_so_and_keeps_its_last_good_checkpoint(tmp_path: Path, becomes: float) -> None:
    with pytest.raises(TrainingDiverged, match=rf"the loss is {becomes} at step 7 of {STEPS}.*lower the learning rate"):
        train(tmp_path, task=Probe(7, becomes), accumulation=1)
    assert {value.isfinite().all().item() for value in tensors(tmp_path).values()} == {True}
    outcome = json.loads((tmp_path / "result.json").read_text())
    assert (outcome["status"], outcome["diverged"], "top1" in outcome) == ("diverged", True, False)
    assert outcome["reason"].startswith(f"the loss is {becomes} at step 7")
    with pytest.raises(TrainingDiverged, match="diverged when it was run: the loss is"):
        train(tmp_path, task=Probe(0, 0.0))


def test_divergence_in_a_micro_batch_names_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="the loss is nan at step 3 of"):
        train(tmp_path, task=Probe(6, float("nan")), accumulation=2, log_every=8, checkpoint_every=50)


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path: Path) -> None:
    def exploding(step: int) -> float:
        return math.inf if step == 3 else schedule(step)  # the loss of step 4 is still finite

    with pytest.raises(TrainingDiverged, match="the weights are no longer finite at step 4"):
        train(tmp_path, "SGD", schedule=exploding)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path),
        pytest.raises(InputError, match=r"another process \(pid \d+\) trains in '.*'; wait for it"),
    ):
        train(tmp_path)
    train(tmp_path)


def test_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    train(tmp_path, recipe={"optimizer": {"lr": 1.0}, "model": {"depth": 2}, "fit": {"workers": 0}})
    same_but = {"optimizer": {"lr": 2.0}, "model": {"depth": 2}, "fit": {"workers": 0}}
    for file in ("result.json", "none"):
        with pytest.raises(
            InputError, match=r"another recipe \(recipe.optimizer.lr was 1.0, now 2.0\); give another --out"
        ):
            train(tmp_path, recipe=same_but)
        (tmp_path / file).unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"fit\.epochs was 3, now 4"):
        train(tmp_path, recipe={"optimizer": {"lr": 1.0}, "model": {"depth": 2}, "fit": {"workers": 2}}, epochs=4)
    with pytest.raises(InputError, match=r"samples was 88, now 80"):
        train(tmp_path, recipe={"optimizer": {"lr": 1.0}, "model": {"depth": 2}}, dataset=digits(80))


def test_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    train(tmp_path, recipe={})
    (tmp_path / "result.json").unlink()
    with pytest.raises(InputError, match=r"another model \(.*of another shape: model.cls_token \(1, 1, 16\) instead"):
        train(tmp_path, recipe={}, task=tiny_task(dim=32))
    with pytest.raises(InputError, match="was made with AdamW, not SOAP"):
        train(tmp_path, "SOAP", recipe={})


def test_batches_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size 100 does not fit a training set of 88"):
        train(tmp_path, batch_size=100)
    with pytest.raises(InputError, match="batch_size 16 is not divisible by accumulation 3"):
        train(tmp_path, accumulation=3)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"epochs": 0}, "epochs 0 is too small; give at least 1"),
        ({"workers": -1}, "workers -1 is too small; give at least 0"),
        ({"clip_norm": 0.0}, "clip_norm 0.0 would clip everything"),
    ],
)
def test_configs_that_make_no_sense_are_refused(field: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitConfig(**field)


def test_precision_is_what_the_device_can(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision 'fp16' needs a CUDA device, this is 'cpu'; use 'fp32' or 'bf16'"):
        train(tmp_path, precision="fp16")
    seen = []
    task = plain_task()
    task.model.blocks[0].mlp.fc1.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    train(tmp_path, precision="bf16", task=task)
    assert set(seen) == {torch.bfloat16}  # in the evaluations, too
    assert {value.dtype for value in task.state_dict().values()} == {torch.float32}


def test_a_device_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no device 'cuda' here; there is cpu"):
        train(tmp_path, device="cuda")


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert logged == pytest.approx({line["step"]: line["loss"] for line in lines(tmp_path) if "loss" in line})
    assert [event.step for event in events.Scalars("evaluation/top1")] == [5, 10, 15]


@pytest.mark.parametrize(("option", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_logger_says_how_it_is_installed(
    option: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"is not installed: pip install '(tensorboard|wandb)>="):
        train(tmp_path, **{option: True})


@pytest.mark.parametrize(("kind", "expected"), [("lines", "epoch 3  top1"), ("bar", "15/15 loss 2."), ("none", "")])
def test_progress_goes_to_the_standard_error(
    kind: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, progress=kind)
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert bool(err) == (kind != "none")


def test_the_steps_do_not_read_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a tensor waits for a GPU: only log lines, evaluations and checkpoints may."""
    reads = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda *a, original=original, name=name: (reads.append(name), original(*a))[1]
        )
    data = digits(shift=0)
    monkeypatch.setattr(
        type(data), "__getitems__", lambda self, key: (torch.zeros(BATCH, 1, 8, 8), torch.zeros(BATCH).long())
    )
    train(tmp_path, "SGD", dataset=data, log_every=50, checkpoint_every=50, evaluate=None, epochs=1, clip_norm=1.0)
    one_epoch = len(reads)
    reads.clear()
    train(
        tmp_path / "long",
        "SGD",
        dataset=data,
        log_every=50,
        checkpoint_every=50,
        evaluate=None,
        epochs=5,
        clip_norm=1.0,
    )
    assert len(reads) == one_epoch


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\nfrom pathlib import Path\ntorch.set_num_threads(1)\n"
        "from reference.tiny_run import digits, tiny_task, train\n"
        "from skipless.data import EvalLoader\nfrom skipless.evaluators import top1\n"
        "from skipless.tasks import SupervisedConfig\n"
        "task = tiny_task(SupervisedConfig(), dropout=0.0)\n"
        "evaluate = lambda model: top1(model, EvalLoader(digits(41, shift=0), batch_size=7))\n"
        "train(Path(sys.argv[1]), 'SGD', task=task, evaluate=evaluate, accumulation=2, schedule=lambda step: 0.3)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, out in (([], "one"), (torchrun, "two")):
        subprocess.run([sys.executable, *command, script, tmp_path / out], env=environment, check=True)
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    for alone, together in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert alone.keys() == together.keys()
        if "loss" in alone:
            assert alone["loss"] == pytest.approx(together["loss"], rel=1e-4)
        else:
            assert alone["evaluation"] == pytest.approx(together["evaluation"], rel=1e-4)
