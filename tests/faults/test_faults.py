"""Kills, full disks and damaged checkpoints: nothing is lost, and nobody is told a wrong result. Longer: `run.py`."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults import ranks
from faults.harness import Report, Undisturbed, damage, torment
from faults.victim import Kind
from reference.tiny_run import same, tensors, tiny_task, train

from skipless.errors import InputError
from skipless.training import TrainingDiverged, load_weights
from skipless.training.run_folder import async_writer as writing
from skipless.training.run_folder.checkpoint import CHECKPOINT, CORRUPT, PREVIOUS, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_a_run_killed_at_random_ends_as_if_undisturbed(tmp_path: Path) -> None:
    report, draw = Report(), random.Random(1)
    torment(tmp_path / "run", Kind(), Undisturbed(tmp_path), 3, draw, report)
    assert report.sound, report
    assert report.kills >= 1


@pytest.mark.slow
def test_the_script_kills_runs_of_one_and_of_several_processes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), "--kills", "24", "--seed", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 x ddp SOAP" in done.stdout
    assert "divergences: 0\nlost checkpoints: 0\nundetected damages: 0\nother failures: 0" in done.stdout


def test_every_damage_is_noticed_and_told_in_one_line(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {"step": 3, "task": {"model.w": torch.randn(8, 8, generator=generator)}, "betas": (0.9, 0.95)}
    path = save_checkpoint(tmp_path, state)
    sound, draw = path.read_bytes(), random.Random(0)
    seen = set()
    for _ in range(600):
        path.write_bytes(sound)
        seen.add(damage(path, draw))
        if path.read_bytes() == sound:
            continue
        with pytest.raises(InputError, match=r"remove it to start afresh$"):
            load_checkpoint(path)
    (tmp_path / PREVIOUS).write_bytes(sound)
    path.write_bytes(sound[:-1])
    with pytest.raises(InputError, match=r"remove it to start afresh, or put checkpoint-previous.safetensors in its"):
        load_checkpoint(path)
    assert seen == {"cut off", "bit in the length", "bit in the header", "bit in the JSON", "bit in a tensor"}


def test_a_damaged_checkpoint_never_replaces_the_sound_one_before(tmp_path: Path) -> None:
    """Killed between the two renames of the next save, a run would have nothing left."""
    train(tmp_path)
    expected = tensors(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    seen = []

    def looking(step: int) -> float:
        seen.append(((tmp_path / CHECKPOINT).exists(), load_checkpoint(tmp_path / PREVIOUS)["step"]))
        return 2e-3 * (1 - step / 16)

    train(tmp_path, schedule=looking)
    assert seen[0] == (False, 12)
    assert (tmp_path / CORRUPT).read_bytes() == b"damaged"
    assert same(tensors(tmp_path), expected)


def test_a_finished_run_whose_last_checkpoint_is_damaged_gives_no_earlier_weights_for_the_last(tmp_path: Path) -> None:
    train(tmp_path)
    expected = tensors(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"its last checkpoint is of step 12 of 15: .* is corrupt.*remove its result"):
        train(tmp_path)
    (tmp_path / "result.json").unlink()
    train(tmp_path)
    assert same(tensors(tmp_path), expected)


def test_a_disk_that_is_really_full_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    size = (tmp_path / "whole" / CHECKPOINT).stat().st_size

    def short_of_room(rank: int) -> None:
        def shrinking(step: int) -> float:
            if step == 5:  # the system's own limit on a file's size: its error comes from the write itself
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
            return 2e-3 * (1 - step / 16)

        train(tmp_path / "run", schedule=shrinking)

    codes = ranks.wait(ranks.start(1, short_of_room, tmp_path / "log"))
    assert codes == [2], (tmp_path / "log").read_text()
    told = (tmp_path / "log").read_text()
    assert "cannot write" in told
    assert "File too large" in told
    assert "goes on from the last checkpoint" in told
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 4
    train(tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


def test_what_is_written_is_the_step_that_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next steps change weights and moments in place while the thread still writes."""
    train(tmp_path / "quick")
    write = writing.write_snapshot
    monkeypatch.setattr(writing, "write_snapshot", lambda *a: (time.sleep(0.1), write(*a))[1])
    for optimizer in ("AdamW", "SOAP"):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / optimizer, optimizer, schedule=interrupting)
        train(tmp_path / optimizer, optimizer)
    assert same(tensors(tmp_path / "AdamW"), tensors(tmp_path / "quick"))


def interrupting(step: int) -> float:
    if step == 11:
        raise KeyboardInterrupt
    return 2e-3 * (1 - step / 16)


def test_a_signal_waits_for_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing.write_snapshot
    monkeypatch.setattr(writing, "write_snapshot", lambda *a: (time.sleep(0.2), write(*a))[1])

    def signalled(step: int) -> float:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return 2e-3 * (1 - step / 16)

    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, schedule=signalled)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert load_checkpoint(tmp_path / CHECKPOINT)["step"] == 7


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path: Path) -> None:
    task = tiny_task()
    forward = type(task).forward

    class Exploding(type(task)):  # type: ignore[misc]
        calls = 0

        def forward(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
            Exploding.calls += self.training
            output = forward(self, *batch)
            return output | {"loss": output["loss"] * float("nan" if Exploding.calls == 10 else "1")}

    task.__class__ = Exploding
    with pytest.raises(
        TrainingDiverged, match="the loss is nan at step 10 of 15 .*; the last checkpoint is of step 8;"
    ):
        train(tmp_path, task=task)
    assert load_checkpoint(tmp_path / CHECKPOINT)["step"] == 8
    assert all(value.isfinite().all() for value in load_weights(tiny_task().model, tmp_path).state_dict().values())


ELASTIC = """
import sys, torch
torch.set_num_threads(1)
import os, signal
from pathlib import Path
from reference.tiny_run import train

out, marks = Path(sys.argv[1]), Path(sys.argv[2])
attempt, rank = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), int(os.environ.get("RANK", "0"))

def dying(step):
    if (attempt, rank, step) in ((0, 1, 6), (1, 0, 10)):
        marks.joinpath(f"{attempt} {rank}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2e-3 * (1 - step / 16)

train(out, schedule=dying)
"""


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_ranks_are_killed_twice_in_a_row(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ELASTIC)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, restarts in (("run", "2"), ("whole", "0")):
        marks = tmp_path / f"marks {name}"
        marks.mkdir()
        if name == "whole":
            environment["TORCHELASTIC_RESTART_COUNT"] = "9"
            script.write_text(ELASTIC.replace("attempt, rank = ", "attempt, rank = 9, 9 #"))
        subprocess.run(
            [*command, "--max-restarts", restarts, script, tmp_path / name, marks],
            env=environment,
            check=True,
            timeout=600,
        )
    assert sorted(mark.name for mark in (tmp_path / "marks run").iterdir()) == ["0 1", "1 0"]
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    resumed = json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]
    assert len(resumed) == 2
