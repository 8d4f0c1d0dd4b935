"""The depth report: its recipes, its files, and that it goes on where it was cut off."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from skipless.data.scenes import WrittenScenes, write, write_scenes
from skipless.errors import InputError
from skipless.experiments.depth import Options, run
from skipless.experiments.depth.recipe import DepthCell, depth_recipe
from skipless.experiments.depth.run import reproduce_depth
from skipless.experiments.supervised.recipe import MUON_RATE
from skipless.recipes import table1
from skipless.recipes.our_init import BLOCK_LR

ROWS = ("skip", "skip + positions", "skipless", "skipless + init", "skipless + ours")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two steps an epoch."""
    monkeypatch.setattr(run, "depth_recipe", lambda *a, **k: depth_recipe(*a, **k).with_(fit__batch_size=512))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("optimizer", ["adamw", "soap", "muon"])
def test_a_recipe_differs_from_table_1_in_depth_positions_and_rates(row, optimizer) -> None:
    recipe = depth_recipe("digits", DepthCell(row, optimizer, 36))
    assert recipe.model.kwargs["depth"] == 36
    assert recipe.model.skip == row.startswith("skip ") or row == "skip"
    assert (recipe.model.positions == "orthogonal") == (row == "skip + positions")
    assert (recipe.model.init is not None) == (row in ("skipless + init", "skipless + ours"))
    assert recipe.optimizer.block_lr == (BLOCK_LR / 36 if row == "skipless + ours" else 1.0)


def test_rates_of_models_without_a_rule_fall_with_depth() -> None:
    for scale in ("digits", "fashion"):
        for row in ROWS:
            short, deep = (depth_recipe(scale, DepthCell(row, "soap", depth)).optimizer.lr for depth in (12, 36))
            assert deep / short == pytest.approx(1 / 3 if row in ("skipless", "skipless + init") else 1.0)
            if row != "skip + positions":
                assert short == table1(scale, row, "soap").optimizer.lr


@pytest.mark.parametrize("row", ROWS)
def test_scenes_have_the_recipe_of_scenes(row) -> None:
    recipe = depth_recipe("scenes", DepthCell(row, "soap", 24), data="somewhere")
    assert recipe.model.kwargs == {"patch_size": 8, "embed_dim": 64, "depth": 24, "num_heads": 2}
    assert recipe.data.data == "somewhere"
    assert recipe.optimizer.block_lr == (BLOCK_LR / 24 if row == "skipless + ours" else 1.0)
    with pytest.raises(InputError, match="scenes needs --data"):
        depth_recipe("scenes", DepthCell(row, "soap", 24))


@pytest.mark.slow
def test_scenes_are_written_where_none_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(folder: Path, layout: str, **sizes: Any) -> WrittenScenes:
        return write_scenes(folder, layout, **{**sizes, "train": 64, "val": 10})

    monkeypatch.setattr(write, "write_scenes", few)
    options = Options(scale="scenes", depths=(1,), rows=("skipless + ours",), epochs=1, jobs=1)
    written = reproduce_depth(options, tmp_path)
    found = json.loads(written["depth.json"].read_text())
    assert len(found) == 1
    assert found[0]["top1"][0] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(depths=(0,)), "--depths 0: a model has at least one block"),
        (Options(depths=()), "give at least one of each"),
        (Options(seeds=0), "--seeds 0: give at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Options, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        reproduce_depth(options, tmp_path)


def test_the_report_says_accuracy_and_tokens_and_is_made_again_from_what_is_there(tmp_path: Path, short: None) -> None:
    options = Options(depths=(2, 1), rows=("skip + positions", "skipless + ours"), epochs=1, jobs=1)
    written = reproduce_depth(options, tmp_path, command="skipless reproduce depth")
    assert {"depth.md", "depth.json", "depth.html", "index.html", "depth-tokens.png"} <= written.keys()
    found = json.loads(written["depth.json"].read_text())
    assert [(one["row"], one["depth"]) for one in found] == [(row, depth) for row in options.rows for depth in (1, 2)]
    for one in found:
        assert (
            len(one["cosine_untrained"]) == len(one["cosine_trained"]) == len(one["diagonal_trained"]) == one["depth"]
        )
    assert "| skipless + ours | SOAP |" in written["depth.md"].read_text()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.*[!k]")}  # locks are touched
    again = reproduce_depth(options, tmp_path, command="skipless reproduce depth")
    assert json.loads(again["depth.json"].read_text()) == found
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert "tokens.json" in {path.name for path in stamps}


@pytest.mark.slow
def test_muon_stands_beside_soap(tmp_path: Path, short: None) -> None:
    options = Options(depths=(1,), rows=("skip", "skipless + ours"), optimizers=("soap", "muon"), epochs=1, jobs=1)
    written = reproduce_depth(options, tmp_path, command="skipless reproduce depth")
    lines = written["depth.md"].read_text().splitlines()
    for row, optimizer in itertools.product(options.rows, ("SOAP", "Muon")):
        assert any(line.startswith(f"| {row} | {optimizer} |") for line in lines)
    assert "not tuned: they are AdamW&#x27;s for the model with skips" in written["depth.html"].read_text()
    for row in ROWS:
        assert depth_recipe("digits", DepthCell(row, "muon", 12)).optimizer.lr == MUON_RATE["digits"]
