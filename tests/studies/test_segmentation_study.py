"""Dense probing and feature pictures end to end on generated VOC scenes."""

import json

import pytest
import timm
import torch
from PIL import Image

from skipless.data.dense import load_segmentation
from skipless.data.scenes import write_scenes
from skipless.errors import InputError
from skipless.evaluators.features import store_builder
from skipless.studies.feature_pictures import PictureConfig, draw_features, find_pictures
from skipless.studies.segmentation import ProbeConfig, majority_scores, segment


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "voc", train=6, val=3, size=64, objects="digits")
    return root


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def picture_size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_every_block_is_probed_beside_the_majority_class(scenes, model, tmp_path) -> None:
    train, val = (load_segmentation("voc", scenes, split) for split in ("train", "val"))
    config = ProbeConfig(protocol="patch", size=64, epochs=2, multiscale=(0, 1))
    result = segment(model, train, val, config, out=tmp_path, name="tiny", examples=2, progress=False)
    assert [score.blocks for score in result.probe.blocks] == [(0,), (1,), (0, 1)]
    (folder,) = tmp_path.glob("linear-probe-*")
    record = json.loads((folder / "result.json").read_text())
    assert record["probe"]["val"] == 3
    assert record["majority"]["miou"] == result.majority.miou
    assert picture_size(folder / "pictures.png")[0] > 300
    assert "most frequent class everywhere" in (folder / "table.md").read_text()
    assert (tmp_path / "features").is_dir()


def test_a_mask_that_was_repaired_counts_and_no_backbone_runs_again(model, tmp_path, monkeypatch) -> None:
    write_scenes(tmp_path / "scenes", "voc", train=4, val=3, size=64, objects="digits")
    train, val = (load_segmentation("voc", tmp_path / "scenes", split) for split in ("train", "val"))
    config = ProbeConfig(protocol="patch", size=64, epochs=1, multiscale=None)
    mask = val.items[1].mask
    sound = mask.read_bytes()
    Image.new("P", (9, 9)).save(mask)
    broken = segment(model, train, val, config, out=tmp_path / "out", examples=0, progress=False)
    assert broken.record()["probe"]["val"] == 2
    assert "is 9 x 9 pixels, its image" in str(broken.record())
    mask.write_bytes(sound)
    monkeypatch.setattr(store_builder, "forward_features", None)
    repaired = segment(model, train, val, config, out=tmp_path / "out", examples=0, progress=False)
    assert repaired.record()["probe"]["val"] == 3


def test_the_majority_class_is_that_of_the_training_masks(scenes) -> None:
    train, val = (load_segmentation("voc", scenes, split) for split in ("train", "val"))
    counts = {data.split: torch.zeros(21, dtype=torch.int64) for data in (train, val)}
    for data in (train, val):
        for index in range(len(data)):
            mask = torch.from_numpy(data.load(index)[1].astype("int64"))
            counts[data.split] += mask[mask != 255].bincount(minlength=21)
    most = int(counts["train"].argmax())
    scores = majority_scores(train, val)
    share = 100 * counts["val"][most].item() / counts["val"].sum().item()
    assert scores.pixel_accuracy == pytest.approx(share)
    assert scores.iou[most] == pytest.approx(share)
    assert scores.miou == pytest.approx(share / int((counts["val"] > 0).sum()))


def test_features_of_every_block_and_of_two_models_are_drawn(scenes, model, tmp_path) -> None:
    images = find_pictures(scenes, 3)
    assert [name for name, _ in images] == sorted(name for name, _ in images)
    (blocks,) = draw_features({"tiny": (model, None)}, images, out=tmp_path)
    assert picture_size(blocks)[1] > 3 * 100
    other = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    config = PictureConfig(blocks=(0,))
    (beside,) = draw_features({"a": (model, None), "b": (other, None)}, images, config, out=tmp_path)
    assert beside.name == "pca-block0-tokens.png"
    assert "| all images |" in (beside.parent / "table.md").read_text()
    with pytest.raises(InputError, match="differ in grids"):
        coarse = timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=1, num_heads=2)
        draw_features({"a": (model, None), "b": (coarse, None)}, images, config, out=tmp_path)


def test_pictures_of_other_settings_stay(scenes, model, tmp_path) -> None:
    images = find_pictures(scenes, 2)
    draw = {"out": tmp_path}
    (first,) = draw_features({"tiny": (model, None)}, images, **draw)
    drawn = first.read_bytes()
    other = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    changed = [
        draw_features({"tiny": (model, None)}, images, PictureConfig(size=32), **draw),
        draw_features({"tiny": (model, None)}, images, PictureConfig(scope="image"), **draw),
        draw_features({"tiny": (model, None)}, images[:1], **draw),
        draw_features({"tiny": (model, ((0.1,) * 3, (0.2,) * 3))}, images, **draw),
        draw_features({"tiny": (other, None)}, images, **draw),
    ]
    folders = {first.parent, *(path.parent for (path,) in changed)}
    assert len(folders) == len(changed) + 1
    assert all(folder.name.startswith("pca-") for folder in folders)
    assert draw_features({"tiny": (model, None)}, images, **draw) == [first]
    assert first.read_bytes() == drawn
    record = json.loads((first.parent / "result.json").read_text())
    assert record["settings"]["size"] is None
    assert record["images"] == [name for name, _ in images]
    shares = record["pictures"][first.name]["block 0 tokens"]
    assert shares["n"] == [2 * 64]
    assert 0 < sum(shares["explained"][0]) <= 1


def test_a_folder_without_images(tmp_path) -> None:
    with pytest.raises(InputError, match="no image below"):
        find_pictures(tmp_path)
