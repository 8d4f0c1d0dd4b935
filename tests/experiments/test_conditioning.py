"""`skipless reproduce` of section 4's evidence: each report from few, small models."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from skipless.conditioning.measurement.tracking import (
    evenly_spaced_blocks,
    first_images,
    network_conditioning_by_rows as table5,
    training_measure,
)
from skipless.errors import InputError
from skipless.experiments.conditioning import assumptions, run as conditioning
from skipless.experiments.conditioning.recipe import made, planned
from skipless.experiments.conditioning.run import reproduce_figure6, reproduce_tables
from skipless.experiments.conditioning.softmax import reproduce_figure5, softmax_draws
from skipless.experiments.token_graying.run import reproduce_token_graying
from skipless.recipes import table1

TINY = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": 4}


@pytest.fixture
def tiny(monkeypatch):
    """Table 1's digits, of 5 tokens and width 16."""

    def small(*args, **kwargs):
        return table1(*args, **kwargs).with_(model__kwargs=TINY, fit__batch_size=256)

    monkeypatch.setattr("skipless.experiments.conditioning.recipe.recipe_named", {"table1": small}.__getitem__)
    monkeypatch.setattr(conditioning, "evenly_spaced_blocks", lambda _: (0, 1, 2, 3))


def test_figure_5_has_quartiles_beside_the_papers_draws(tmp_path):
    files = reproduce_figure5(tmp_path, draws=200)
    values = json.loads(files["figure5.json"].read_text())
    peaked, diffuse = (np.quantile(values[name]["kappa"], (0.25, 0.5, 0.75)) for name in ("peaked", "diffuse"))
    assert 1.05 < peaked[0] < peaked[2] < 1.15
    assert 150 < diffuse[0] < 500 < diffuse[2] < 3000
    s = torch.linalg.svdvals(softmax_draws(200, 0.0, 0)[3])
    assert values["diffuse"]["kappa"][3] == pytest.approx((s[0] / s[-1]).item(), rel=1e-6)
    assert "| 730.1 |" in files["figure5.md"].read_text()
    assert files["figure5.png"].stat().st_size > 5000


def test_tables_at_initialisation_are_those_of_the_models(tiny, tmp_path):
    files = reproduce_tables("table6", "init", tmp_path)
    values = json.loads(files["table6.json"].read_text())
    recipe = conditioning.model_recipe("digits", "skip")
    images = conditioning.load_images(recipe.data)
    expected = json.loads(json.dumps(training_measure(images)(recipe.model.build(images, 0))))
    assert values["skip"] == [{"share": 0.0, "measurement": expected}]
    before = (tmp_path / "init-seed0" / "skip.json").stat().st_mtime_ns
    again = reproduce_tables("table5", "init", tmp_path)
    assert (tmp_path / "init-seed0" / "skip.json").stat().st_mtime_ns == before
    assert "class token" in again["table5.md"].read_text()
    assert files["table6-depth.png"].exists()


def test_measurements_of_other_images_are_made_anew(tiny, tmp_path, monkeypatch):
    first = json.loads(reproduce_tables("table6", "init", tmp_path)["table6.json"].read_text())
    load = conditioning.load_images

    def inverted(config):
        data = load(config)
        return replace(data, val=replace(data.val, images=255 - data.val.images))

    monkeypatch.setattr(conditioning, "load_images", inverted)
    other = json.loads(reproduce_tables("table6", "init", tmp_path)["table6.json"].read_text())
    assert first["skip"] != other["skip"]


def test_figure_6_has_the_tokens_of_the_models(tiny, tmp_path):
    text = reproduce_figure6("init", tmp_path)["figure6.md"].read_text()
    assert text.count("| initialisation |") == 4


def test_assumptions_at_initialisation(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(assumptions, "TALL", assumptions.Rows(4, 5, 8))
    monkeypatch.setattr(assumptions, "WIDE", {"class token": assumptions.Rows(2, 1, 8)})
    files = assumptions.reproduce_assumptions("init", tmp_path)
    cases = json.loads(files["assumptions.json"].read_text())
    assert [case["model"] for case in cases[::2]] == ["skip", "skipless", "skipless + init"]
    assert all(case["eq6"] is not False for case in cases if case["bound"]["orientation"] == "wide")
    assert files["assumptions.md"].read_text().count("| class token |".strip("| ")) == 3
    with pytest.raises(InputError, match="not at 'vit-s'"):
        assumptions.reproduce_assumptions("vit-s", tmp_path)


def test_token_graying_lowers_kappa(tmp_path):
    files = reproduce_token_graying("digits", tmp_path)
    values = json.loads(files["token-graying.json"].read_text())
    for logs in values.values():
        means = [sum(kappas) / len(kappas) for kappas in logs]
        assert means == sorted(means, reverse=True)


def test_runs_are_measured_at_fifteenths():
    recipes = planned("digits", seed=0, data=None, epochs=None)
    assert {recipe.fit.measure_every for recipe in recipes.values()} == {1290 // 15}


def test_the_papers_scale_says_what_to_run(tmp_path):
    recipes = planned("paper", seed=0, data="imagenet", epochs=None)
    with pytest.raises(InputError) as refused:
        made(recipes, "paper", tmp_path, None)
    assert str(refused.value).count("--measure-every 6240") == 3
    assert "--skip" in str(refused.value)


def test_four_depths_are_the_papers():
    assert evenly_spaced_blocks(12) == (0, 4, 7, 11)
    assert evenly_spaced_blocks(1) == (0,)


def test_what_training_measures_fits_any_width():
    recipe = table1("digits", "skip", "soap", seed=0).with_(model__kwargs=TINY | {"embed_dim": 8})
    images = conditioning.load_images(recipe.data)
    model = recipe.model.build(images, 0)
    found = table5(model, first_images(images, 4), double=True)
    assert found["class"]["rows"]["outputs"] == tuple(range(8))
    with pytest.raises(InputError, match="there are 400 validation images"):
        first_images(images, 401)


@pytest.mark.slow
def test_through_training_whole(tiny, tmp_path):
    files = reproduce_tables("table6", "digits", tmp_path, epochs=3, jobs=2)
    lines = files["table6.md"].read_text().splitlines()
    assert sum(line.startswith("| 1.00 | ") for line in lines) == 3
    assert files["conditioning.png"].stat().st_size > 5000
    again = reproduce_tables("table5", "digits", tmp_path, epochs=3, jobs=2)
    assert "class token" in again["table5.md"].read_text()
    assert reproduce_figure6("digits", tmp_path, epochs=3)["figure6.md"].read_text().count("| trained |") == 4
