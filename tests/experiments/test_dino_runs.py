"""Pretrainings that a report shares: their teachers kept through kills, and what a sweep shows of them."""

import json
from pathlib import Path

import pytest
from reference.tiny_images import images
from reference.tiny_run import die, killed
from reference.tiny_scale import RATE, make_tiny, tiny
from rich.console import Console
from safetensors.torch import load_file

from skipless.errors import InputError
from skipless.experiments.dense.pretraining import tuning as dino_tuning
from skipless.experiments.dense.pretraining.runs import epochs_of, members
from skipless.experiments.dense.pretraining.tuning import read_rates
from skipless.experiments.dense.run import reproduce_dense
from skipless.recipes import dino, teacher_snapshots
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.sweep import Job, run_jobs


def test_a_killed_run_keeps_the_same_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("scenes", "skip", data=str(images(tmp_path / "images")), depth=1)
    recipe.run(tmp_path / "whole")
    save = teacher_snapshots.save_weights

    def save_and_die(model, path: Path, **named) -> Path:
        saved = save(model, path, **named)
        return die() if path.name == "teacher-epoch-0002.safetensors" else saved  # pyright: ignore[reportReturnType]

    def run_to_its_death() -> None:
        teacher_snapshots.save_weights = save_and_die
        recipe.run(tmp_path / "killed")

    killed(run_to_its_death)
    assert list(kept_teachers(tmp_path / "killed")) == [1, 2]
    recipe.run(tmp_path / "killed")
    whole, again = kept_teachers(tmp_path / "whole"), kept_teachers(tmp_path / "killed")
    assert list(whole) == list(again) == [1, 2, 3]
    for epoch, file in whole.items():
        assert file.read_bytes() == again[epoch].read_bytes()
    kept = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    assert all(value.equal(kept[f"task/model.{name}"]) for name, value in load_file(whole[3]).items())
    assert all(value.dtype.itemsize == 4 for value in load_file(whole[3]).values())


def test_teachers_are_kept_where_there_are_no_labels(tmp_path: Path) -> None:
    flat = images(tmp_path / "images", classes=1) / "train" / "class0"
    recipe = tiny("scenes", "skip", data=str(flat), depth=1).with_(
        fit__epochs=3, fit__batch_size=8, fit__evaluate_every=2, keep_every=2
    )
    recipe.run(tmp_path / "run")
    assert list(kept_teachers(tmp_path / "run")) == [2, 3]
    with pytest.raises(InputError, match=r"keep_every 3: teachers are kept .* fit\.evaluate_every 2;"):
        recipe.with_(keep_every=3)


def test_teachers_of_a_run_that_was_given_up_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    flat = images(tmp_path / "images", classes=1) / "train" / "class0"
    run = tmp_path / "run"
    run.mkdir()
    for epoch in (1, 2, 7):
        teacher_snapshots.teacher_file(run, epoch).write_bytes(b"of another run")
    changes = {"fit__epochs": 2, "fit__batch_size": 8, "fit__evaluate_every": 2, "keep_every": 2}
    tiny("scenes", "skip", data=str(flat), depth=1).with_(**changes).run(run)
    assert list(kept_teachers(run)) == [2]
    assert load_file(kept_teachers(run)[2])


def test_rates_of_table_1_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tuning.json").write_text('[{"row": "skip", "optimizer": "soap", "top1": {"0.001": 90.0}}]')
    assert read_rates(tmp_path, "knn_best") == {}


def test_the_papers_epochs_and_depths_are_asked_for() -> None:
    recipe = dino("vit_small", data="imagenet/")
    assert epochs_of(recipe) == (200, 300)
    assert epochs_of(recipe.with_(fit__epochs=30, fit__evaluate_every=1, keep_every=1), points=3) == (10, 20, 30)
    assert epochs_of(recipe.with_(fit__epochs=1, fit__evaluate_every=1, keep_every=1), points=3) == (1,)
    asked = members("table4", 12, seeds=2)
    assert [(one.row, one.depth) for one in asked if one.seed == 0] == [
        ("skip", 12), ("skipless + init", 12), ("skipless + init", 11), ("skipless + init", 10), ("skipless + init", 9),
    ]  # fmt: skip
    assert {one.seed for one in asked} == {0, 1}
    assert set(asked[:2]) < set(members("table2", 12, seeds=1))  # one run serves both


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rates_are_tuned_once_for_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch, processes=True)
    monkeypatch.setattr(dino_tuning, "FACTORS", (1.0, 3.0))
    reproduce_dense("figure8", "scenes", tmp_path, tuned=True)
    tuned = json.loads((tmp_path / "tuning-dino.json").read_text())
    assert [one["row"] for one in tuned] == ["skip", "skipless", "skipless + init"]
    best = {(one["row"], one["optimizer"]): float(max(one["knn_best"], key=one["knn_best"].get)) for one in tuned}
    assert set(best.values()) <= {RATE, 3 * RATE}
    reproduce_dense("figure4", "scenes", tmp_path)  # of the same runs
    for file in (tmp_path / "runs").glob("*/run.json"):
        recipe = json.loads(file.read_text())["recipe"]
        row = "skip" if recipe["model"]["skip"] else "skipless + init" if recipe["model"]["init"] else "skipless"
        assert recipe["optimizer"]["lr"] == best[row, recipe["optimizer"]["name"]]
    assert read_rates(tmp_path, "knn_best") == best


@pytest.mark.slow
def test_a_sweep_shows_a_recipes_own_metric(tmp_path: Path) -> None:
    recipe = tiny("scenes", "skip", data=str(images(tmp_path / "images")), depth=1)
    job = Job(("skip",), recipe, tmp_path / "run", 3)
    with (tmp_path / "told").open("w") as told:
        run_jobs([job], parallel=1, console=Console(file=told, width=200))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert job.score == result["knn_best"]
    assert f"knn best {result['knn_best']:.1f} %" in (tmp_path / "told").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interrupted_anywhere_it_ends_with_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch, processes=True)
    whole = reproduce_dense("table4", "scenes", tmp_path / "a", jobs=2)
    shown: list[int] = []

    class Interrupted:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *_: object) -> None: ...
        def show(self) -> None:
            shown.append(1)
            if len(shown) in (20, 45, 80):
                raise KeyboardInterrupt

    monkeypatch.setattr("skipless.sweep.runner.Display", Interrupted)
    files = None
    while files is None:
        try:
            files = reproduce_dense("table4", "scenes", tmp_path / "b", jobs=2)
        except KeyboardInterrupt:
            continue
    assert len(shown) > 20
    assert whole["table4.csv"].read_bytes() == files["table4.csv"].read_bytes()
    folder = next((tmp_path / "a" / "runs").iterdir()).name
    one, other = (kept_teachers(tmp_path / name / "runs" / folder) for name in "ab")
    assert len(one) == 3
    assert [file.read_bytes() for file in one.values()] == [file.read_bytes() for file in other.values()]
