"""`skipless reproduce`, whole: kill it where you like, start it again, hold the same table."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from skipless.errors import InputError
from skipless.experiments.supervised.recipe import GRID, Cell
from skipless.experiments.supervised.run import reproduce_table1
from skipless.recipes import table1
from skipless.sweep import Job, run_jobs
from skipless.sweep.rates import best_rate

# Until its modules are loaded a command is Python's, Ctrl-C included; how long that takes depends on the machine.
LOADED = "from skipless.cli import main; print('loaded', flush=True); main()"


def reproduce(out: Path, *flags: str) -> subprocess.Popen:
    """Start the command, and give it once it is skipless's own."""
    command = [sys.executable, "-c", LOADED, "reproduce", "table1", "--epochs", "1", "--out", str(out), *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    return process


def weights(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("runs/*/checkpoint.safetensors")):
        with safe_open(path, framework="np") as file:
            found |= {f"{path.parent.name}/{name}": file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments_it_ends_with_the_same_table(tmp_path) -> None:
    undisturbed = reproduce(tmp_path / "a", "--jobs", "2")
    printed, _ = undisturbed.communicate()
    assert undisturbed.returncode == 0, printed
    chance = random.Random(int.from_bytes(os.urandom(4)))
    for kill in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGINT):
        victim = reproduce(tmp_path / "b", "--jobs", "2")
        time.sleep(chance.uniform(1, 12))
        if kill == signal.SIGKILL:
            victim.kill()
        else:
            os.killpg(victim.pid, kill)  # Ctrl-C reaches the whole group
        printed, _ = victim.communicate()
        if kill == signal.SIGINT:
            # Once all is written, Ctrl-C finds Python as it ends, which takes it a second.
            assert victim.returncode in ((0, -signal.SIGINT, 130) if "index.html" in printed else (130,))
            assert "Traceback" not in printed
    last = reproduce(tmp_path / "b", "--jobs", "2")
    printed, _ = last.communicate()
    assert last.returncode == 0, printed
    assert (tmp_path / "a/table1.csv").read_bytes() == (tmp_path / "b/table1.csv").read_bytes()
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert len(one) > 6 * 100
    assert one == other


@pytest.mark.slow
def test_tuning_looks_at_held_out_images_only(tmp_path, monkeypatch) -> None:
    cell = Cell("skip", "adamw")
    monkeypatch.setattr("skipless.experiments.supervised.run.CELLS", (cell,))
    monkeypatch.setitem(GRID["digits"], cell, (1e-5, 1e-2))
    files = reproduce_table1("digits", tmp_path, tune=True, epochs=1, jobs=2)
    grid = json.loads((tmp_path / "tuning.json").read_text())[0]["top1"]
    reported = json.loads(next(tmp_path.glob("runs/*/run.json")).read_text())["recipe"]
    assert reported["optimizer"]["lr"] == float(max(grid, key=grid.__getitem__))
    assert reported["data"]["holdout"] == 0
    assert files["table1.md"].exists()
    for folder in (tmp_path / "tuning").iterdir():
        recipe = json.loads((folder / "run.json").read_text())["recipe"]
        assert recipe["data"]["holdout"] == 200
        assert json.loads((folder / "result.json").read_text())["n"] == 200
    assert json.loads(next(tmp_path.glob("runs/*/result.json")).read_text())["n"] == 400


def test_the_best_rate_is_the_most_accurate_that_did_not_diverge() -> None:
    cell = Cell("skip", "adamw")
    assert best_rate(cell, {1e-4: 50.0, 1e-3: 80.0, 1e-2: None}) == 1e-3
    with pytest.raises(InputError, match=r"every learning rate of \[0.1, 1.0\] diverged"):
        best_rate(cell, {0.1: None, 1.0: None})


def test_the_papers_scale_says_what_to_run(tmp_path) -> None:
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split / "cat").mkdir(parents=True)
        (tmp_path / "imagenet" / split / "cat" / "1.jpg").touch()
    with pytest.raises(
        InputError, match="torchrun --nproc-per-node 8 -m skipless train table1 --scale paper"
    ) as caught:
        reproduce_table1("paper", tmp_path / "out", data=str(tmp_path / "imagenet"))
    assert str(caught.value).count("torchrun") == 6


def test_a_job_that_cannot_run_is_named_and_the_others_finish(tmp_path) -> None:
    recipe = table1("digits", "skip", "adamw").with_(fit__epochs=1)
    recipe = recipe.with_(model__kwargs={**recipe.model.kwargs, "depth": 1})
    broken = recipe.with_(data__data=str(tmp_path / "missing"))
    jobs = [Job(("broken", "AdamW"), broken, tmp_path / "b", 43), Job(("good", "AdamW"), recipe, tmp_path / "g", 43)]
    with pytest.raises(InputError, match=r"broken, AdamW: no data .*missing"):
        run_jobs(jobs, parallel=2)
    assert [job.state for job in jobs] == ["failed", "done"]
    assert (tmp_path / "g/result.json").exists()


def test_a_refused_run_is_no_diverged_one(tmp_path) -> None:
    """A folder that holds another, diverged run: that run's result must not become this one's."""
    recipe = table1("digits", "skip", "adamw").with_(fit__epochs=1)
    recipe = recipe.with_(model__kwargs={**recipe.model.kwargs, "depth": 1})
    diverging = Job(("first",), recipe.with_(optimizer__lr=1e30), tmp_path / "r", 43)
    run_jobs([diverging], parallel=1)
    assert diverging.state == "diverged"
    other = Job(("second",), recipe, tmp_path / "r", 43)
    with pytest.raises(InputError, match="second: .*lr"):
        run_jobs([other], parallel=1)
    assert other.state == "failed"


def test_finished_runs_of_another_length_are_not_the_papers(tmp_path, monkeypatch) -> None:
    data = tmp_path / "imagenet"
    for split in ("train", "val"):
        (data / split / "cat").mkdir(parents=True)
        (data / split / "cat" / "1.jpg").touch()
    folder = tmp_path / "out" / "runs" / "skip-adamw-seed0"
    folder.mkdir(parents=True)
    recipe = table1("paper", "skip", "adamw", data=str(data)).with_(fit__epochs=100)
    (folder / "run.json").write_text(json.dumps({"recipe": recipe.as_json()}))
    (folder / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"was made by another recipe \(.*epochs was 100, now 300"):
        reproduce_table1("paper", tmp_path / "out", data=str(data))
