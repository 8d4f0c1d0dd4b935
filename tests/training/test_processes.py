"""Several processes, copying or sharding the model, train what one does; and a checkpoint is nobody's in particular."""

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import ranks
from reference.tiny_dino import tiny_dino, train_dino
from reference.tiny_run import STEPS, lines, same, schedule, tensors, tiny_task, train
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.nn.parallel import DistributedDataParallel

from skipless.errors import InputError
from skipless.tasks import Supervised, SupervisedConfig
from skipless.training import FitConfig
from skipless.training.loop import engine
from skipless.training.processes.launch import launch

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
        one(folder, run)


def one(folder: Path, run: Run, **changes: Any) -> None:
    if run.name.startswith("dino"):
        train_dino(folder / run.name, task=tiny_dino(drop_path=0.0), strategy=run.strategy, log_every=1)
        return
    arguments = {"schedule": stopping if run.stops else schedule, "task": plain_task()} | changes
    with pytest.raises(Stop) if run.stops else nullcontext():
        train(
            folder / run.name, run.optimizer, log_every=1, accumulation=2, clip_norm=1.0, strategy=run.strategy,
            **arguments,
        )  # fmt: skip


def together(world: int, folder: Path, runs: list[Run]) -> None:
    """Do runs in a group of so many processes, started once."""
    ranks.run_apart(world, partial(do, folder, runs), folder / f"{world}.log")


def assert_same_curve(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    for alone, shared in zip(lines(one), lines(other), strict=True):
        assert alone.keys() == shared.keys()
        for name in {"loss", "teacher_entropy"} & alone.keys():
            assert math.isclose(alone[name], shared[name], abs_tol=tolerance), (other.name, alone, shared)
        if "grad_norm" in alone:
            assert math.isclose(alone["grad_norm"], shared["grad_norm"], rel_tol=1e-3), (other.name, alone, shared)
        if "evaluation" in alone:
            assert alone["evaluation"] == pytest.approx(shared["evaluation"], abs=1e-4), other.name


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that two processes do in the tests below: they are started once."""
    folder = tmp_path_factory.mktemp("pair")
    one(folder, Run("begun alone", "auto", stops=True))
    ranks.run_apart(2, partial(as_a_pair, folder), folder / "log")
    return folder


def as_a_pair(folder: Path, rank: int) -> None:
    whole = [Run("ddp"), Run("fsdp", "fsdp"), Run("soap", optimizer="SOAP"), Run("dino fsdp", "fsdp")]
    whole += [Run(f"muon {strategy}", strategy, "Muon") for strategy in ("ddp", "fsdp")]
    do(folder, [*whole, Run("begun alone", "fsdp"), Run("begun soap", optimizer="SOAP", stops=True)], rank)
    do(folder, [Run("begun soap", optimizer="SOAP")], rank)
    task = plain_task()
    one(folder, Run("deferred", "fsdp"), task=task if rank == 0 else task.to("meta"))
    count_synchronisations(folder)
    for strategy in ("ddp", "fsdp"):
        note_refusal(folder, f"weights {strategy}", rank, Run("none", strategy), task=differing(rank))
    note_refusal(folder, "meta", rank, Run("none"), task=plain_task().to("meta"))
    do(folder, [Run("elsewhere", stops=True)], rank)
    note_refusal(folder if rank == 0 else folder / "other", "folders", rank, Run("elsewhere"))


def plain_task() -> Supervised:
    return tiny_task(SupervisedConfig(), dropout=0.0)


def differing(rank: int) -> Supervised:
    task = plain_task()
    if rank == 1:
        with torch.no_grad():
            task.model.blocks[1].mlp.fc1.weight[3, 4] += 1e-6
    return task


def note_refusal(folder: Path, name: str, rank: int, run: Run, **changes: Any) -> None:
    with pytest.raises(InputError) as refused:
        one(folder, run, **changes)
    folder.mkdir(exist_ok=True)
    (folder / f"{name} {rank}").write_text(str(refused.value))


def count_synchronisations(folder: Path) -> None:
    reductions: list[int] = []
    synchronised: list[bool] = []
    reduce, forward = _fsdp_param_group.foreach_reduce, DistributedDataParallel.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        reductions.append(1)
        return reduce(*args, **kwargs)

    def noting(self: DistributedDataParallel, *args: Any) -> Any:
        synchronised.append(self.require_backward_grad_sync)
        return forward(self, *args)

    counts = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fsdp_param_group, "foreach_reduce", counting)
        patch.setattr(DistributedDataParallel, "forward", noting)
        for accumulation in (1, 4):
            train(folder / f"sync {accumulation}", epochs=1, accumulation=accumulation, strategy="fsdp", evaluate=None)
            counts[accumulation] = len(reductions)
            reductions.clear()
        train(folder / "sync ddp", epochs=1, accumulation=4, strategy="ddp", evaluate=None)
    assert counts[1] == counts[4] > 0
    assert synchronised == [False, False, False, True] * 5


@pytest.mark.parametrize(
    "name",
    ["ddp", "fsdp", "soap", "muon ddp", "muon fsdp", "begun alone", "begun soap", "deferred", "dino fsdp"],
)
def test_two_processes_train_what_one_does(name: str, pair: Path, tmp_path: Path) -> None:
    kind = "dino one" if name.startswith("dino") else "one"
    optimizer = {"soap": "SOAP", "muon": "Muon"}.get(name.removeprefix("begun ").split()[0], "AdamW")
    one(tmp_path, Run(kind, "auto", optimizer))
    assert_same_curve(tmp_path / kind, pair / name)
    for alone, shared in zip(lines(tmp_path / kind), lines(pair / name), strict=True):
        if "watch" in alone:
            assert alone["watch"]["grad_norms"] == pytest.approx(shared["watch"]["grad_norms"], rel=1e-3)


def test_a_resumed_run_of_two_processes_is_bit_identical(pair: Path) -> None:
    assert same(tensors(pair / "soap"), tensors(pair / "begun soap"))
    assert lines(pair / "soap") == lines(pair / "begun soap")
    assert lines(pair / "soap")[-1]["step"] == STEPS


def test_accumulation_synchronises_once_a_step(pair: Path) -> None:
    assert all((pair / f"sync {which}" / "result.json").exists() for which in (1, 4, "ddp"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("weights ddp", "process 1 of 2 starts from other weights than the first one (first: model.blocks.1.mlp.fc1.w"),
        (
            "weights fsdp",
            "process 1 of 2 starts from other weights than the first one (first: model.blocks.1.mlp.fc1.w",
        ),
        ("meta", "the model is on the meta device: build it on a real one; only strategy 'fsdp' shares it out"),
    ],
)
def test_processes_that_do_not_start_alike_all_stop(name: str, told: str, pair: Path) -> None:
    assert all(told in (pair / f"{name} {rank}").read_text() for rank in (0, 1))


def test_processes_that_see_different_folders_all_stop(pair: Path) -> None:
    told = "(steps, by process: 8, none): give an --out that all machines share"
    assert told in (pair / "folders 0").read_text()
    assert told in (pair / "other" / "folders 1").read_text()


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


def test_what_cannot_be_sharded_is_refused() -> None:
    with pytest.raises(InputError, match="precision 'fp16' under strategy 'fsdp'"):
        launch("cpu", "fp16", "fsdp")
    assert FitConfig(strategy="fsdp").strategy == "fsdp"  # one process: nothing is shared
    assert engine.compiled_eagerly(FitConfig()) is not None
