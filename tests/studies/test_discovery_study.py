"""Object discovery end to end: generated VOC scenes, every block and kind, interrupted and gone on with."""

import json

import pytest
import timm
import torch

from skipless.data.dense import load_boxes
from skipless.data.scenes import write_scenes
from skipless.errors import InputError
from skipless.evaluators.discovery import draw_discoveries
from skipless.studies.discovery import DiscoveryConfig, discover


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "voc", train=2, val=4, size=64, objects="digits")
    return root


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2)


def test_every_block_and_kind_is_scored_beside_the_whole_image(scenes, model, tmp_path, monkeypatch) -> None:
    data, named = load_boxes("voc12", scenes), []

    def draw(*given, names, **how):
        named.extend(names)
        return draw_discoveries(*given, names=names, **how)

    monkeypatch.setattr("skipless.studies.discovery.draw_discoveries", draw)
    result = discover(model, data, out=tmp_path, name="tiny", progress=False)
    assert set(result.scores) == {(block, kind) for block in (0, 1) for kind in ("k", "q", "v", "tokens")}
    assert result.last_key == (1, "k")
    assert result.n + result.without_boxes == len(data)
    assert result.scores[result.best].percent == max(score.percent for score in result.scores.values())
    (folder,) = tmp_path.iterdir()
    record = json.loads((folder / "result.json").read_text())
    assert record["corloc"]["block 1 k"]["n"] == result.n
    assert (folder / "pictures.png").stat().st_size > 1000
    assert named == [item.id for item in data.items if item.id not in result.unreadable]
    assert "whole image as the box" in (folder / "table.md").read_text()


def test_it_goes_on_where_it_was_cut_off(scenes, model, tmp_path, monkeypatch) -> None:
    data = load_boxes("voc12", scenes)
    config = DiscoveryConfig(blocks=(-1,), kinds=("k",))
    whole = discover(model, data, config, out=tmp_path / "whole", progress=False)
    looked_at, load = [], type(data).load

    def counting(self, index):
        looked_at.append(index)
        if len(looked_at) == 3:
            raise KeyboardInterrupt
        return load(self, index)

    monkeypatch.setattr(type(data), "load", counting)
    with pytest.raises(KeyboardInterrupt):
        discover(model, data, config, out=tmp_path / "cut", examples=0, progress=False)
    journal = next((tmp_path / "cut").glob("*/journal-0.jsonl"))
    with journal.open("a") as file:
        file.write('{"image": "cut o')
    again = discover(model, data, config, out=tmp_path / "cut", examples=0, progress=False)
    assert again == whole
    assert len(looked_at) == len(data) + 1  # the one where it was cut off, twice


def test_unreadable_images_are_recorded_and_left_out(model, tmp_path) -> None:
    write_scenes(tmp_path / "scenes", "voc", train=1, val=3, size=64, objects="digits")
    data = load_boxes("voc12", tmp_path / "scenes")
    data.items[0].image.write_bytes(b"no jpeg")
    result = discover(model, data, DiscoveryConfig(method="lost", kinds=("k",)), out=tmp_path / "out", progress=False)
    assert list(result.unreadable) == [data.items[0].id]
    assert str(data.items[0].image) in result.unreadable[data.items[0].id]
    assert "1 image could not be used" in str(result)
    for item in data.items:
        item.image.write_bytes(b"no jpeg")
    with pytest.raises(InputError, match="none of the"):
        discover(model, data, out=tmp_path / "other", progress=False)


def test_annotations_that_were_repaired_are_read_anew(model, tmp_path) -> None:
    write_scenes(tmp_path / "scenes", "voc", train=1, val=3, size=64, objects="digits")
    data, config = load_boxes("voc12", tmp_path / "scenes"), DiscoveryConfig(blocks=(-1,), kinds=("k",))
    annotation = data.items[0].annotation
    sound = annotation.read_bytes()
    annotation.write_bytes(b"<annotation>")
    broken = discover(model, data, config, out=tmp_path / "out", examples=0, progress=False)
    assert list(broken.unreadable) == [data.items[0].id]
    annotation.write_bytes(sound)
    repaired = discover(model, data, config, out=tmp_path / "out", examples=0, progress=False)
    assert (repaired.unreadable, repaired.n) == ({}, broken.n + 1)


def test_resized_images_give_boxes_in_their_own_pixels(scenes, model, tmp_path) -> None:
    data = load_boxes("voc12", scenes)
    config = DiscoveryConfig(blocks=(-1,), kinds=("k",), size=32)
    result = discover(model, data, config, out=tmp_path, progress=False)
    lines = [json.loads(line) for line in next(tmp_path.glob("*/journal-0.jsonl")).read_text().splitlines()]
    boxes = [line["found"]["block 1 k"] for line in lines if line.get("found")]
    assert len(boxes) == result.n
    assert max(side for box in boxes for side in box) > 32
    assert all(side % 16 == 0 for box in boxes for side in box)
