"""Whatever a launcher has left in the environment: a process is right, or refused in one line."""

import os
import subprocess
import sys

import pytest
import torch

from skipless.errors import InputError
from skipless.sweep.runner import run_jobs
from skipless.training.processes import launcher
from skipless.training.processes.launch import launch, takes_shards_only

OF_LAUNCHERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_JOB_NAME", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
    "JSM_NAMESPACE_SIZE", launcher.TORCHRUN,
)  # fmt: skip

ALONE = {
    "Slurm job": {"SLURM_NTASKS": "4"},
    "Slurm batch script": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_NNODES": "2"},
    "srun of one": {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    "one of one": {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1"},
    "an address": {"MASTER_ADDR": "nowhere.example", "MASTER_PORT": "none"},
    "counts of torchrun's": {"LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"},
    "empty": {"RANK": "", "WORLD_SIZE": ""},
    "LSF": {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "x", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "1"},
}
REFUSED = {
    "rank": ({"RANK": "3"}, "RANK=3"),
    "world": ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4"),
    "first of several": ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "WORLD_SIZE=2"),
    "local rank": ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1"),
    "srun": ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, "srun has started 4"),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun has started 2"),
    "no number": ({"RANK": "three"}, "RANK='three'"),
    "torchrun's rank alone": ({launcher.TORCHRUN: "none", "RANK": "3"}, "RANK=3 of WORLD_SIZE=1"),
    "torchrun's rank beyond": ({launcher.TORCHRUN: "none", "RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2"),
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch) -> None:
    for name in OF_LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("case", ALONE)
def test_one_process_is_alone_whatever_a_job_has_set(monkeypatch, case: str) -> None:
    for name, value in ALONE[case].items():
        monkeypatch.setenv(name, value)
    fabric = launch("cpu", "fp32", "ddp")
    assert (fabric.world_size, fabric.global_rank, fabric.is_global_zero) == (1, 0, True)
    assert fabric.device == torch.device("cpu")
    assert launcher.rank_and_world_size() == (0, 1)


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_one_of_several_is_refused(monkeypatch, case: str) -> None:
    values, words = REFUSED[case]
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for act in (lambda: launch("cpu", "fp32"), lambda: takes_shards_only("ddp"), lambda: run_jobs([], parallel=1)):
        with pytest.raises(InputError) as refused:
            act()
        assert words in str(refused.value)
        assert "unset " in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "code", "words"),
    [({"SLURM_NTASKS": "4"}, 0, "1 step"), ({"RANK": "0", "WORLD_SIZE": "1"}, 0, "1 step"), ({"RANK": "3"}, 2, "")],
)
def test_train_says_its_result_or_why_not(tmp_path, values: dict[str, str], code: int, words: str) -> None:
    command = ["train", "table1", "--data", "digits", "--out", str(tmp_path / "out"), "--epochs", "1", "--progress"]
    command += ["none", "--batch-size", "1397", "--device", "cpu", "--optimizer", "adamw"]
    found = subprocess.run(
        [sys.executable, "-m", "skipless", *command],
        env=os.environ | values,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == code, found.stderr
    assert words in found.stdout
    if code:
        assert found.stderr.startswith("skipless: RANK=3 in the environment")
        assert found.stderr.count("\n") == 1
