import dataclasses
import json

import pytest
import torch

from skipless.data import load_images
from skipless.errors import InputError
from skipless.experiments.supervised.recipe import CELLS, INIT, LEARNING_RATE, Cell
from skipless.init import SkiplessInit
from skipless.models import block_views, inspect_init
from skipless.recipes import Recipe, read_recipe, run, table1


@pytest.mark.parametrize("scale", ["digits", "fashion", "paper"])
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_recipe_survives_json(scale: str, cell: Cell) -> None:
    recipe = table1(scale, cell.row, cell.optimizer, seed=3, data="there" if scale == "paper" else None)
    assert Recipe.from_json(json.loads(json.dumps(recipe.as_json()))) == recipe
    assert recipe.fit.seed == 3
    assert recipe.optimizer.lr == LEARNING_RATE[scale][cell]
    assert (recipe.model.init is not None) == (cell.row in ("skipless + init", "skipless + ours"))
    assert recipe.model.skip == (cell.row == "skip")


def test_the_papers_recipe_is_the_papers() -> None:
    """Section 6.1, and Xu et al. 2024, whose setup it follows without drop path."""
    recipe = table1("paper", data="imagenet")
    assert (recipe.model.name, dict(recipe.model.kwargs)) == ("vit_base_patch16_224", {})
    assert recipe.model.init == SkiplessInit(2.0, 0.6, 3.0)
    assert (recipe.fit.epochs, recipe.fit.batch_size) == (300, 4096)
    assert recipe.schedule.warmup * recipe.fit.epochs == pytest.approx(50)
    assert recipe.schedule.final_lr == 1e-6
    targets = recipe.targets
    assert (targets.mixup, targets.cutmix, targets.label_smoothing, targets.mix_probability) == (0.8, 1.0, 0.1, 1.0)
    assert (recipe.data.auto_augment, recipe.data.erasing) == ("rand-m9-mstd0.5-inc1", 0.25)
    adamw = table1("paper", "skip", "adamw", data="imagenet").optimizer
    assert (adamw.lr, adamw.weight_decay) == (4e-3, 0.05)
    assert table1("digits").schedule.warmup < 1


def test_the_three_rows_differ_in_nothing_else() -> None:
    """Same seed, same patch embedding and head: what is compared is the blocks."""
    data = load_images(table1("digits").data)
    skip, skipless, init = (
        table1("digits", row).model.build(data, 0) for row in ("skip", "skipless", "skipless + init")
    )
    for name in ("patch_embed.proj.weight", "pos_embed", "head.weight"):
        assert torch.equal(skip.get_parameter(name), skipless.get_parameter(name))
        assert torch.equal(skip.get_parameter(name), init.get_parameter(name))
    assert torch.equal(skip.blocks[3].mlp.fc1.weight, skipless.blocks[3].mlp.fc1.weight)
    assert block_views(skip)[0].skips == ("attn", "mlp")
    assert {view.skips for model in (skipless, init) for view in block_views(model)} == {()}


@pytest.mark.parametrize("scale", ["digits", "fashion"])
def test_the_init_of_each_scale_suits_its_width(scale: str) -> None:
    recipe = table1(scale)
    images = dataclasses.replace(load_images(table1("digits").data), image_size=28 if scale == "fashion" else 8)
    assert inspect_init(recipe.model.build(images, 0), INIT[scale]).flags == ()


def test_changes_by_dotted_name() -> None:
    recipe = table1("digits").with_(optimizer__lr=0.5, fit__epochs=None, fit__seed=9, scale="x")
    assert (recipe.optimizer.lr, recipe.fit.epochs, recipe.fit.seed, recipe.scale) == (0.5, 30, 9, "x")


@pytest.mark.usefixtures("unchecked")
def test_bad_requests_are_quoted(tmp_path) -> None:
    with pytest.raises(InputError, match="no table1 run 'imagenet', 'skip', 'soap'; scales are digits, fashion, paper"):
        table1("imagenet", "skip")
    with pytest.raises(InputError, match="needs ImageNet-1k: give its folder"):
        table1("paper")
    with pytest.raises(InputError, match="is no run folder of `skipless train`"):
        read_recipe(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": {"name": "table1"}}')
    with pytest.raises(InputError, match="cannot be read.*another version"):
        read_recipe(tmp_path)


def test_a_run_trains_and_is_recognised_when_finished(tmp_path) -> None:
    """Two epochs of two blocks: the loss falls, and a second call changes nothing."""
    recipe = table1("digits", "skip", "soap").with_(fit__epochs=2, fit__device="cpu", fit__progress="none")
    recipe = recipe.with_(model__kwargs={**recipe.model.kwargs, "depth": 2}, optimizer__lr=1e-2)
    result = run(recipe, tmp_path / "r")
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.2
    assert result.metrics["n"] == 400
    before = (tmp_path / "r/metrics.jsonl").read_bytes()
    assert run(recipe, tmp_path / "r").metrics == result.metrics
    assert (tmp_path / "r/metrics.jsonl").read_bytes() == before
    assert read_recipe(tmp_path / "r") == recipe
    with pytest.raises(InputError, match="lr was 0.01, now 0.02"):
        run(recipe.with_(optimizer__lr=0.02), tmp_path / "r")
