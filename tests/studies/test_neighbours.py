"""k-NN end to end: digits in memory, and a folder with a file that is no image."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from skipless.data import ImageConfig, ImageData, load_images
from skipless.errors import InputError
from skipless.evaluators.classification.nearest_neighbours import knn
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.models.token_graying import insert_token_graying_, remove_token_graying_
from skipless.studies.classifier import ClassifierConfig, classify
from skipless.studies.neighbours import NeighbourConfig, nearest_neighbours
from skipless.studies.pooled import PoolConfig


def vit(**kwargs):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=2, in_chans=1, **kwargs
    )


def folder_of_shades(root: Path, each: int = 3) -> Path:
    for split in ("train", "val"):
        for label, shade in (("dark", 20), ("light", 220)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (16, 16), (shade, shade + i, shade)).save(folder / f"{i}.png")
    return root


def small_rgb_vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2)


def test_digits_by_every_block_equal_the_evaluator(tmp_path) -> None:
    data, model = load_images(ImageConfig("digits")), vit()
    result = nearest_neighbours(model, data, out=tmp_path, name="tiny", data_name="digits", progress=False)
    assert set(result.scores) == {0, 1}
    assert result.pooled.majority < 20 < result.scores[0][10].top1
    made = [
        features(model, torch.stack([part[i][0] for i in range(len(part))]), FeatureConfig(blocks=(1,)))[1, "tokens"]
        for part in (data.train, data.val)
    ]
    x_train, x_val = (f.prefix[:, 0] for f in made)
    top1, _ = knn(x_train, data.train.labels, x_val, data.val.labels, k=20)
    assert result.scores[1][20].top1 == pytest.approx(top1)
    (folder,) = tmp_path.glob("knn-*")
    assert json.loads((folder / "result.json").read_text())["knn"]["block 1"]["k 20"]["n"] == len(data.val)


def test_features_are_made_once(tmp_path, monkeypatch) -> None:
    data, model = load_images(ImageConfig("digits")), vit()
    first = nearest_neighbours(model, data, NeighbourConfig(ks=(5,)), out=tmp_path, progress=False)

    def never(*_args, **_kwargs):
        raise AssertionError("the backbone ran again")

    monkeypatch.setattr("skipless.studies.pooled.features", never)
    again = nearest_neighbours(model, data, NeighbourConfig(ks=(5, 7)), out=tmp_path, progress=False)
    assert again.scores[1][5] == first.scores[1][5]
    with pytest.raises(AssertionError, match="again"):
        nearest_neighbours(
            model, data, NeighbourConfig(ks=(5,), pool=PoolConfig(pooling="mean")), out=tmp_path, progress=False
        )


def test_a_file_that_is_no_image_is_recorded(tmp_path) -> None:
    folder_of_shades(tmp_path / "data")
    (tmp_path / "data" / "train" / "dark" / "1.png").write_bytes(b"no image")
    data = load_images(ImageConfig(str(tmp_path / "data"), image_size=16, augmentation="none"))
    result = nearest_neighbours(small_rgb_vit(), data, NeighbourConfig(ks=(1,)), out=tmp_path / "out", progress=False)
    assert result.scores[0][1].n_train == 5
    (why,) = result.pooled.unreadable.values()
    assert "1.png" in why
    assert "1 image could not be used" in str(result)


def test_a_batch_of_which_nothing_can_be_read_is_left_out_alone(tmp_path) -> None:
    root = folder_of_shades(tmp_path / "data")
    (root / "val" / "light" / "2.png").write_bytes(b"no image")  # the sixth of six, alone in its batch of five
    data = load_images(ImageConfig(str(root), image_size=16, augmentation="none"))
    config = NeighbourConfig(ks=(1,), pool=PoolConfig(batch_size=5))
    result = nearest_neighbours(small_rgb_vit(), data, config, out=tmp_path / "out", progress=False)
    assert result.scores[0][1].n == 5
    assert list(result.pooled.unreadable) == ["image 5"]


def test_vectors_are_made_anew_where_what_they_depend_on_has_changed(tmp_path) -> None:
    root, model = folder_of_shades(tmp_path / "data"), small_rgb_vit()
    identities, rows = [], []

    def look(data: ImageData) -> None:
        pooled = nearest_neighbours(model, data, NeighbourConfig(ks=(1,)), out=tmp_path / "out", progress=False).pooled
        identities.append(pooled.identity)
        rows.append(pooled.val[0])

    data = load_images(ImageConfig(str(root), image_size=16, augmentation="none"))
    look(data)
    look(data)
    assert identities[0] == identities[1]
    half = (0.5, 0.5, 0.5)
    look(replace(data, train=data.train.normalised_by(half, half), val=data.val.normalised_by(half, half)))
    look(replace(data, val=replace(data.val, labels=1 - data.val.labels)))
    insert_token_graying_(model)
    look(data)
    remove_token_graying_(model)
    Image.new("RGB", (16, 16), (0, 255, 0)).save(root / "val" / "dark" / "0.png")
    look(data)
    assert len(set(identities)) == 5
    assert not torch.equal(rows[0], rows[2])
    assert torch.equal(rows[0], rows[3])
    assert not torch.equal(rows[0], rows[4])
    assert not torch.equal(rows[0][0], rows[5][0])
    assert torch.equal(rows[0][1:], rows[5][1:])


def test_a_model_without_a_class_token_takes_the_mean(tmp_path) -> None:
    data = load_images(ImageConfig("digits"))
    model = vit(class_token=False, global_pool="avg")
    assert nearest_neighbours(model, data, out=tmp_path, progress=False).pooled.pooling == "mean"
    with pytest.raises(InputError, match="no class token"):
        nearest_neighbours(model, data, NeighbourConfig(pool=PoolConfig(pooling="class")), out=tmp_path, progress=False)


def test_a_linear_head_takes_the_same_vectors(tmp_path, monkeypatch) -> None:
    data, model = load_images(ImageConfig("digits")), vit()
    vectors = PoolConfig(blocks=(0,), pooling="mean")
    nearest_neighbours(model, data, NeighbourConfig(ks=(5,), pool=vectors), out=tmp_path, progress=False)
    monkeypatch.setattr("skipless.studies.pooled.features", None)  # all vectors are there
    config = ClassifierConfig(epochs=40, pool=vectors)
    result = classify(model, data, config, out=tmp_path, name="tiny", progress=False)
    block, top1 = result.best
    assert top1 == max(score.top1 for score in result.probe.blocks)
    assert top1 > 2 * result.pooled.majority
    assert f"best (block {block}" in str(result)
    (folder,) = tmp_path.glob("linear-*")
    assert json.loads((folder / "result.json").read_text())["probe"]["select"] == "val"


def test_a_register_is_no_class_token(tmp_path) -> None:
    data = load_images(ImageConfig("digits"))
    model = vit(class_token=False, reg_tokens=2, global_pool="avg")
    assert nearest_neighbours(model, data, out=tmp_path, progress=False).pooled.pooling == "mean"
