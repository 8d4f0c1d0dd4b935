"""Several processes, copying or sharding the model, train what one does; and a checkpoint is nobody's in particular."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from faults import ranks
from reference.tiny_dino import tiny_dino, train_dino
from reference.tiny_run import STEPS, lines, same, schedule, tensors, tiny_task, train
from torch.nn.parallel import DistributedDataParallel

from skipless.errors import InputError
from skipless.tasks import SupervisedConfig
from skipless.training import FitConfig, engine
from skipless.training.devices import launch

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

STOP = 9  # the step that never comes: the last checkpoint is of step 8


class Stop(Exception):
    """Ends a run as a crash does."""


def stopping(step: int) -> float:
    if step == STOP:
        raise Stop
    return schedule(step)


@dataclass(frozen=True)
class Run:
    """One run among those that a group of processes does after each other.

    Attributes:
        name: of its folder; a run that finds a checkpoint there goes on from it.
        stops: leaves it after step 8.
    """

    name: str
    strategy: str = "ddp"
    optimizer: str = "AdamW"
    stops: bool = False


def do(folder: Path, runs: list[Run], rank: int) -> None:
    torch.set_num_threads(1)
    for run in runs:
        try:
            one(folder, run, schedule=stopping if run.stops else schedule)
        except Stop:
            assert run.stops


def one(folder: Path, run: Run, **changes: Any) -> None:
    if run.name.startswith("dino"):
        train_dino(folder / run.name, task=tiny_dino(drop_path=0.0), strategy=run.strategy, log_every=1)
        return
    train(
        folder / run.name, run.optimizer, task=tiny_task(SupervisedConfig(), dropout=0.0), log_every=1,
        accumulation=2, clip_norm=1.0, strategy=run.strategy, **changes,
    )  # fmt: skip


def together(world: int, folder: Path, runs: list[Run]) -> None:
    """Do runs in a group of so many processes, forked once."""
    ranks.run(world, lambda rank: do(folder, runs, rank), folder / f"{world}.log")


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    for alone, shared in zip(lines(one), lines(other), strict=True):
        assert alone.keys() == shared.keys()
        for name in {"loss", "teacher_entropy"} & alone.keys():
            assert math.isclose(alone[name], shared[name], abs_tol=tolerance), (other.name, alone, shared)
        if "grad_norm" in alone:
            assert math.isclose(alone["grad_norm"], shared["grad_norm"], rel_tol=1e-3), (other.name, alone, shared)
        if "evaluation" in alone:
            assert alone["evaluation"] == pytest.approx(shared["evaluation"], abs=1e-4), other.name


def test_two_processes_copying_or_sharding_train_what_one_does(tmp_path: Path) -> None:
    together(1, tmp_path, [Run("one", "auto"), Run("begun", "auto", stops=True)])
    together(2, tmp_path, [Run("ddp", "ddp"), Run("fsdp", "fsdp"), Run("begun", "fsdp")])
    for name in ("ddp", "fsdp", "begun"):
        assert_same_curve(tmp_path / "one", tmp_path / name)


def test_dino_s_teacher_and_clipping_are_sharded_alike(tmp_path: Path) -> None:
    together(1, tmp_path, [Run("dino one", "auto")])
    together(2, tmp_path, [Run("dino fsdp", "fsdp")])
    assert_same_curve(tmp_path / "dino one", tmp_path / "dino fsdp")
    for alone, shared in zip(lines(tmp_path / "dino one"), lines(tmp_path / "dino fsdp"), strict=True):
        if "watch" in alone:
            assert alone["watch"]["grad_norms"] == pytest.approx(shared["watch"]["grad_norms"], abs=1e-5)


@pytest.mark.slow
def test_one_two_and_four_processes_give_one_loss_curve_and_resume_each_other_s_checkpoints(tmp_path: Path) -> None:
    optimizers = ("AdamW", "SOAP")
    kinds = list(itertools.product(("ddp", "fsdp"), optimizers))
    together(1, tmp_path, [Run(f"1 auto {o}", "auto", o) for o in optimizers] + [Run("dino 1", "auto")])
    together(1, tmp_path, [Run(f"1 to 2 {s} {o}", "auto", o, stops=True) for s, o in kinds])
    for world in (2, 4):
        runs = [Run(f"{world} {s} {o}", s, o) for s, o in kinds] + [
            Run(f"dino {world} {s}", s) for s in ("ddp", "fsdp")
        ]
        begun = [Run(f"{world} {s} to {other} {o}", s, o, stops=True) for s, o in kinds for other in (1, 2, 4)]
        together(world, tmp_path, runs + begun)
    across = {"ddp": "fsdp", "fsdp": "ddp"}
    together(1, tmp_path, [Run(f"{world} {s} to 1 {o}", "auto", o) for world in (2, 4) for s, o in kinds])
    together(
        2, tmp_path,
        [Run(f"1 to 2 {s} {o}", s, o) for s, o in kinds]
        + [Run(f"{world} {s} to 2 {o}", across[s], o) for world in (2, 4) for s, o in kinds],
    )  # fmt: skip
    together(4, tmp_path, [Run(f"{world} {s} to 4 {o}", across[s], o) for world in (2, 4) for s, o in kinds])
    compared = 0
    for folder in sorted(path for path in tmp_path.iterdir() if path.is_dir()):
        alone = "dino 1" if folder.name.startswith("dino") else f"1 auto {folder.name.rpartition(' ')[2]}"
        assert_same_curve(tmp_path / alone, folder)
        assert (folder / "result.json").exists()
        compared += 1
    assert compared == 3 + 2 * (4 + 2) + 4 + 2 * 4 * 3


def test_a_resumed_run_of_two_processes_is_bit_identical(tmp_path: Path) -> None:
    together(2, tmp_path, [Run("whole", "ddp", "SOAP"), Run("resumed", "ddp", "SOAP", stops=True)])
    together(2, tmp_path, [Run("resumed", "ddp", "SOAP")])
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "resumed"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "resumed")
    assert lines(tmp_path / "whole")[-1]["step"] == STEPS


def test_accumulation_synchronises_once_a_step(tmp_path: Path) -> None:
    def counted(rank: int) -> None:
        torch.set_num_threads(1)
        scattered: list[int] = []
        synchronised: list[bool] = []
        scatter, forward = dist.reduce_scatter_tensor, DistributedDataParallel.forward
        dist.reduce_scatter_tensor = lambda *a, **k: (scattered.append(1), scatter(*a, **k))[1]
        DistributedDataParallel.forward = lambda self, *a: (  # type: ignore[method-assign]
            synchronised.append(self.require_backward_grad_sync),
            forward(self, *a),
        )[1]
        counts = {}
        for accumulation in (1, 4):
            train(
                tmp_path / f"fsdp {accumulation}", epochs=1, accumulation=accumulation, strategy="fsdp", evaluate=None
            )
            counts[accumulation] = len(scattered)
            scattered.clear()
        assert counts[1] == counts[4] > 0
        train(tmp_path / "ddp", epochs=1, accumulation=4, strategy="ddp", evaluate=None)
        assert synchronised == [False, False, False, True] * 5

    ranks.run(2, counted, tmp_path / "log")


def refused(world: int, body: Callable[[int], object], log: Path) -> str:
    """What processes say that all end with a clear error."""
    codes = ranks.wait(ranks.start(world, body, log))
    assert codes == [2] * world, log.read_text()
    return log.read_text()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_start_from_different_weights_stop(strategy: str, tmp_path: Path) -> None:
    def differing(rank: int) -> None:
        task = tiny_task()
        if rank == 1:
            with torch.no_grad():
                task.model.blocks[1].mlp.fc1.weight[3, 4] += 1e-6
        train(tmp_path / "run", task=task, strategy=strategy)

    told = refused(2, differing, tmp_path / "log")
    assert (
        told.count("process 1 of 2 starts from other weights than the first one (first: model.blocks.1.mlp.fc1.w") == 2
    )


def test_processes_that_see_different_folders_stop(tmp_path: Path) -> None:
    together(2, tmp_path, [Run("run", stops=True)])
    told = refused(2, lambda rank: one(tmp_path / ("" if rank == 0 else "elsewhere"), Run("run")), tmp_path / "log")
    assert "(steps, by process: 8, none): give an --out that all machines share" in told


def test_only_the_first_process_need_build_the_model(tmp_path: Path) -> None:
    def deferred(rank: int) -> None:
        task = tiny_task(SupervisedConfig(), dropout=0.0)
        train(tmp_path / "run", task=task if rank == 0 else task.to("meta"), strategy="fsdp", log_every=1)

    together(1, tmp_path, [])
    ranks.run(2, deferred, tmp_path / "log")
    ranks.run(
        1,
        lambda rank: train(tmp_path / "one", task=tiny_task(SupervisedConfig(), dropout=0.0), log_every=1),
        tmp_path / "log",
    )
    assert_same_curve(tmp_path / "one", tmp_path / "run")
    told = refused(
        2, lambda rank: train(tmp_path / "ddp", task=tiny_task().to("meta"), strategy="ddp"), tmp_path / "no"
    )
    assert "the model is on the meta device" in told


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(InputError, match="precision 'fp16' under strategy 'fsdp'"):
        launch("cpu", "fp16", "fsdp")
    assert FitConfig(strategy="fsdp").strategy == "fsdp"  # one process: nothing is shared
    assert engine.compiled_eagerly(FitConfig()) is not None
