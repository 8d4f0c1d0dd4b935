"""A run that is killed, at whatever moment, and started again ends where an undisturbed one ends, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reference.tiny_run import STEPS, die, killed, lines, same, schedule, tensors, train

from skipless.training.run_folder import atomic as files, checkpoint
from skipless.training.run_folder.folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

Crash = Callable[[pytest.MonkeyPatch], object]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def run(optimizer: str) -> Path:
        if optimizer not in folders:
            folders[optimizer] = tmp_path_factory.mktemp(optimizer)
            train(folders[optimizer], optimizer)
        return folders[optimizer]

    return run


def at_call(n: int, function: Callable[..., object], *, after: bool = False) -> Callable[..., object]:
    """Die at the n-th call of a function, before or after doing what it does."""
    calls = 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == n and not after:
            die_when_written()
        result = function(*args, **kwargs)
        if calls == n:
            die_when_written()
        return result

    return wrapped


def die_when_written() -> None:
    """Die once the checkpoint that is being written beside us is complete, so that it is known where a run goes on."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint" and thread is not threading.current_thread():
            thread.join()
    die()


def half_written(tensors: dict, path: Path, metadata: dict) -> None:
    checkpoint_file = path.with_suffix(".whole")
    SAVE_FILE(tensors, checkpoint_file, metadata)
    path.write_bytes(checkpoint_file.read_bytes()[:-1000])
    checkpoint_file.unlink()
    die()


SAVE_FILE, REPLACE, WRITE, LOG = checkpoint.save_file, os.replace, RunFolder.write, RunFolder.log

# Checkpoints at 4, 8, 12 and 15; log lines at 3, 6, 9, 12 and 15; evaluations at 5, 10 and 15. Renames: the metrics,
# the record, the first checkpoint, then two for each later one.
CRASHES: dict[str, Crash] = {
    "before the first checkpoint": lambda patch: patch.setattr(RunFolder, "log", at_call(1, LOG)),
    "in the first checkpoint": lambda patch: patch.setattr(checkpoint, "save_file", half_written),
    "before a rename": lambda patch: patch.setattr(files.os, "replace", at_call(4, REPLACE)),
    "between the two renames": lambda patch: patch.setattr(files.os, "replace", at_call(4, REPLACE, after=True)),
    "before the names are on the disk": lambda patch: patch.setattr(
        files.os, "replace", at_call(5, REPLACE, after=True)
    ),
    "after an evaluation": lambda patch: patch.setattr(RunFolder, "log", at_call(3, LOG, after=True)),
    "before the result": lambda patch: patch.setattr(RunFolder, "write", at_call(2, WRITE)),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_killed_anywhere_a_run_ends_where_it_would_have(
    crash: str, tmp_path: Path, undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        CRASHES[crash](patch)
        killed(lambda: train(tmp_path / "run"))
    assert not (tmp_path / "run" / "result.json").exists()
    result = train(tmp_path / "run")
    expected = undisturbed("AdamW")
    assert same(tensors(tmp_path / "run"), tensors(expected))
    assert lines(tmp_path / "run") == lines(expected)
    assert result.steps == STEPS
    assert result.metrics == train(expected).metrics
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize("step", [1, 6, 14])
@pytest.mark.parametrize("name", ["SOAP", "Muon"])
def test_others_resume_exactly(name: str, step: int, tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    killed(lambda: train(tmp_path, name, schedule=at_call(step + 1, schedule)))
    train(tmp_path, name)
    assert same(tensors(tmp_path), tensors(undisturbed(name)))
    assert lines(tmp_path) == lines(undisturbed(name))


def test_killed_again_and_again_with_workers(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    for calls in (6, 6, 5):  # the schedule is asked once a step and once a log line
        killed(lambda calls=calls: train(tmp_path, schedule=at_call(calls, schedule), workers=2))
    train(tmp_path)
    assert same(tensors(tmp_path), tensors(undisturbed("AdamW")))
    assert lines(tmp_path) == lines(undisturbed("AdamW"))
    record = json.loads((tmp_path / "run.json").read_text())
    assert [session["step"] for session in record["resumed"]] == [4, 8, 8]


def test_a_line_cut_in_half_is_dropped(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    killed(lambda: train(tmp_path, schedule=at_call(10, schedule)))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    train(tmp_path)
    assert lines(tmp_path) == lines(undisturbed("AdamW"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_a_line(
    number: signal.Signals, tmp_path: Path, undisturbed: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupting(step: int) -> float:
        if step == 6:
            os.kill(os.getpid(), number)
        return schedule(step)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, schedule=interrupting)
    assert stopped.value.code == 128 + number
    assert f"stopped by {number.name} at step 7 of {STEPS}" in capsys.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    train(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["resumed"][0]["step"] == 7
    assert same(tensors(tmp_path), tensors(undisturbed("AdamW")))
    assert lines(tmp_path) == lines(undisturbed("AdamW"))


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir() if file.name != ".lock"}

    def untouchable(_: object) -> dict[str, float]:
        raise AssertionError("evaluated again")

    assert train(tmp_path, evaluate=untouchable) == first
    assert before == {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir() if file.name != ".lock"}


@pytest.mark.slow
def test_a_real_process_killed_at_random_moments(tmp_path: Path, undisturbed: Callable[[str], Path]) -> None:
    script = "from pathlib import Path\nimport sys, torch\ntorch.set_num_threads(1)\n" + (
        "from reference.tiny_run import train\ntrain(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for delay in (0.0, 0.1, 0.3):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not (tmp_path / "run" / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.wait()
    subprocess.run(command, env=environment, check=True)
    assert same(tensors(tmp_path / "run"), tensors(undisturbed("AdamW")))
    assert lines(tmp_path / "run") == lines(undisturbed("AdamW"))
