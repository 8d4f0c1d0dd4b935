"""DINO's recipes: what they say, that they come back from JSON, and a run from images to an exported teacher."""

import json
from pathlib import Path

import pytest
import timm
import torch
from reference.tiny_images import images
from safetensors.torch import load_file

from skipless.data.loading.loader import BatchKey
from skipless.data.multicrop import MultiCropConfig
from skipless.data.shards import write_shards
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views
from skipless.recipes import dino, open_model
from skipless.recipes.export import export_backbone
from skipless.recipes.neighbours_config import NeighboursConfig
from skipless.recipes.self_supervised import DinoRecipe
from skipless.recipes.teacher_knn import _pooled
from skipless.tasks import DINOConfig
from skipless.training import FitConfig


def tiny(folder: Path, row: str = "skipless + init") -> DinoRecipe:
    recipe = dino("scenes", row, data=str(folder), depth=2)  # pyright: ignore[reportArgumentType]
    return recipe.with_(
        model__kwargs={"patch_size": 8, "embed_dim": 12, "num_heads": 1, "depth": 2, "dynamic_img_size": True},
        data__image_size=32,
        crops=MultiCropConfig(global_size=32, local_size=16, local_crops=2),
        task=DINOConfig(out_dim=16, hidden_dim=8, bottleneck_dim=4, watch_every=2, watch_after=10),
        fit=FitConfig(epochs=2, batch_size=8, device="cpu", progress="none"),
        neighbours=NeighboursConfig(k=3),
    )


def test_the_papers_run_is_the_published_one_nearest_to_it() -> None:
    recipe = dino("vit_small", data="imagenet/")
    assert recipe.model.init == SkiplessInit(alpha=1.8, beta=1.0, c=3.0)
    assert (recipe.fit.epochs, recipe.fit.batch_size, recipe.optimizer.lr) == (300, 1024, 5e-4 * 4)
    assert recipe.schedule.warmup * recipe.fit.epochs == pytest.approx(10)
    assert recipe.crops == MultiCropConfig()
    backbone = dino("vit_small", "skipless", data="imagenet/", depth=9).backbone()
    assert [view.skips for view in block_views(backbone)] == [()] * 9
    assert sum(p.numel() for p in backbone.parameters()) == sum(
        p.numel() for p in timm.create_model("vit_small_patch16_224", num_classes=0, depth=9).parameters()
    )


@pytest.mark.parametrize("scale", ["vit_small", "scenes"])
@pytest.mark.parametrize("row", ["skip", "skipless", "skipless + init"])
def test_recipes_come_back_from_json(scale: str, row: str) -> None:
    recipe = dino(scale, row, "soap", data="images/", seed=3)  # pyright: ignore[reportArgumentType]
    assert DinoRecipe.from_json(json.loads(json.dumps(recipe.as_json()))) == recipe
    assert recipe.model.skip == (row == "skip")


def test_what_contradicts_itself_is_refused() -> None:
    recipe = dino("scenes", data="images/")
    with pytest.raises(InputError, match=r"optimizer\.weight_decay 0\.1 is not where"):
        recipe.with_(optimizer__weight_decay=0.1)
    assert recipe.with_(optimizer__weight_decay=0.1, task__weight_decay=0.1).task.weight_decay == 0.1
    with pytest.raises(InputError, match="give task.clip='global'"):
        recipe.with_(fit__clip_norm=3.0)
    with pytest.raises(InputError, match=r"crops\.pixels 'uint8'"):
        recipe.with_(crops__pixels="uint8")
    with pytest.raises(InputError, match="needs a folder of images"):
        dino("scenes")
    with pytest.raises(InputError, match="made by another version"):
        DinoRecipe.from_json({"name": "dino"})


def test_a_run_evaluates_its_teacher_and_exports_it(tmp_path: Path) -> None:
    recipe, out = tiny(images(tmp_path / "images")), tmp_path / "run"
    result = recipe.run(out)
    assert result.steps == 4
    assert {"knn", "knn_best", "knn_best_block", "knn_block_0", "knn_block_1"} == result.metrics.keys()
    assert result.metrics["knn_best"] > 50
    assert DinoRecipe.from_json(json.loads((out / "run.json").read_text())["recipe"]) == recipe
    assert recipe.run(out) == result  # recognised as finished
    written = load_file(export_backbone(out, tmp_path / "teacher.safetensors").file)
    kept = load_file(out / "checkpoint.safetensors")
    assert torch.equal(written["blocks.1.mlp.fc1.weight"], kept["task/model.blocks.1.mlp.fc1.weight"])
    assert not torch.equal(written["blocks.1.mlp.fc1.weight"], kept["task/student.blocks.1.mlp.fc1.weight"])


def test_shards_are_trained_on_and_evaluated_as_the_folder_is(tmp_path: Path) -> None:
    folder, out = images(tmp_path / "images"), tmp_path / "shards"
    write_shards(folder, out)
    assert tiny(out).run(tmp_path / "packed").metrics == tiny(folder).run(tmp_path / "loose").metrics


def test_images_without_labels_are_pretrained_on_and_not_evaluated(tmp_path: Path) -> None:
    flat = images(tmp_path / "images", classes=1) / "train" / "class0"
    recipe = tiny(flat, "skip")
    assert recipe.run(tmp_path / "run").metrics == {}
    with pytest.raises(InputError, match="measure_every needs validation images"):
        recipe.with_(fit__measure_every=1).run(tmp_path / "other")


def test_options_of_the_objective_are_left_out_of_json_as_long_as_they_are_the_papers() -> None:
    plain = dino("scenes", data="images/")
    new = {"pooling", "patch_loss", "mask_share", "mask_ratio", "mask_spread", "mask_shape", "teacher_patch_temp"}
    assert not new & plain.as_json()["task"].keys()
    changed = plain.with_(task__pooling="mean", task__patch_loss=1.0, task__mask_ratio=0.4)
    assert new & changed.as_json()["task"].keys() == {"pooling", "patch_loss", "mask_ratio"}
    assert DinoRecipe.from_json(json.loads(json.dumps(changed.as_json()))) == changed


def test_a_run_with_patches_is_evaluated_on_them_and_exports_timms_weights(tmp_path: Path) -> None:
    recipe, out = tiny(images(tmp_path / "images")), tmp_path / "run"
    recipe = recipe.with_(task__pooling="mean", task__patch_loss=1.0)
    result = recipe.run(out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert all({"image_loss", "patch_loss"} <= line.keys() for line in logged)
    assert any("watch" in line for line in lines)
    labelled = recipe.load().labelled
    assert labelled is not None
    vit = open_model(str(out)).model
    assert recipe.evaluation(labelled)(vit) == pytest.approx(result.metrics)
    exported = load_file(export_backbone(out, tmp_path / "backbone.safetensors").file)
    assert exported.keys() == timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2).state_dict().keys()


def test_neighbours_are_found_by_the_feature_that_is_asked_for(tmp_path: Path) -> None:
    recipe = tiny(images(tmp_path / "images"))
    labelled, vit = recipe.load().labelled, recipe.backbone()
    assert labelled is not None
    _pooled(vit, labelled.val, 4, 2, "class")
    mean, labels = _pooled(vit, labelled.val, 4, 2, "mean")
    batch, expected = labelled.val.__getitems__(BatchKey(0, 0, torch.arange(4) * len(labelled.val) // 4))
    assert torch.equal(labels, expected)
    tokens = vit.forward_features(batch)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(mean[1], tokens[:, 1:].mean(1).detach())
    assert not torch.allclose(mean[1], tokens[:, 0])
