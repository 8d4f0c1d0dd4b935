"""Run folders that the commit 3672518 has written: before recipes became one kind, and modules families."""

import json
import shutil
from pathlib import Path

import pytest
from reference.command import skipless
from reference.tiny_images import images

from skipless.experiments.conditioning.report import read_moments
from skipless.experiments.dense.pretraining.history import read_pretraining
from skipless.recipes import export_backbone, open_model, read_recipe
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.report.run_records import read_run

EARLIER = Path(__file__).parents[1] / "fixtures/runs-3672518"
FINISHED, CUT_OFF = ("table1", "scenes", "dino"), ("table1-cut-off", "dino-cut-off")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy, beside the images that it was trained on."""
    images(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(EARLIER / request.param, tmp_path / request.param))


@pytest.mark.parametrize("name", FINISHED + CUT_OFF)
def test_its_recipe_reads_back_as_it_was_written(name: str) -> None:
    recorded = json.loads((EARLIER / name / "run.json").read_text())["recipe"]
    recipe = read_recipe(EARLIER / name)
    assert json.loads(json.dumps(recipe.as_json())) == recorded
    assert recipe.model.library == "timm"


@pytest.mark.parametrize("folder", FINISHED, indirect=True)
def test_a_finished_one_is_opened_recognised_and_exported(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    weights = (folder / "checkpoint.safetensors").read_bytes()
    recipe = read_recipe(folder)
    again = recipe.run(folder)
    assert (again.steps, again.seconds) == (result["steps"], result["seconds"])
    assert again.metrics[recipe.metric] == result[recipe.metric]
    assert (folder / "checkpoint.safetensors").read_bytes() == weights
    assert open_model(str(folder)).trained
    assert export_backbone(folder, folder / "backbone.safetensors").file.exists()


@pytest.mark.parametrize("folder", CUT_OFF, indirect=True)
def test_one_that_was_cut_off_goes_on(folder: Path) -> None:
    before = (folder / "metrics.jsonl").read_text().splitlines()
    recipe, kept = read_recipe(folder), list(kept_teachers(folder))
    result = recipe.run(folder)
    record = json.loads((folder / "run.json").read_text())
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (resumed,) = record["resumed"]
    assert 0 < resumed["step"] < result.steps == record["steps"]
    assert lines[: len(before)] == [line for line in before if json.loads(line)["step"] <= resumed["step"]]
    assert len(lines) > len(before)
    assert list(kept_teachers(folder))[: len(kept)] == kept
    assert result.metrics[recipe.metric] == json.loads((folder / "result.json").read_text())[recipe.metric]


@pytest.mark.parametrize("folder", CUT_OFF, indirect=True)
def test_it_does_not_go_on_as_another_run(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.optimizer\.lr was .*, now 0\.5"):
        read_recipe(folder).with_(optimizer__lr=0.5).run(folder)


def test_reports_read_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = read_run(EARLIER / "table1")
    assert run.steps == 10
    assert run.top1 == json.loads((EARLIER / "table1/result.json").read_text())["top1"]
    assert [moment.share for moment in read_moments(EARLIER / "table1")] == [0.0, 0.5, 1.0]
    pretraining = read_pretraining(EARLIER / "dino", "skipless + init", "soap", 2)
    assert len(pretraining.neighbours) == 2
    code, printed, _ = skipless(capsys, "eval", str(EARLIER / "table1"), "top1", "--out", str(tmp_path))
    assert (code, f"top1 {run.top1:.5g}" in printed) == (0, True)
