"""Studies end to end on files that are not as they should be: each is left out and named, and the others count."""

import hashlib
import json

import pytest
import timm
import torch
from data.test_unreadable import huge_png, oversized_text

from skipless.data.dense import coco_boxes, load_segmentation
from skipless.data.scenes import write_scenes
from skipless.evaluators.features.store_builder import files_identity
from skipless.studies.discovery import DiscoveryConfig, discover
from skipless.studies.segmentation import ProbeConfig, segment
from skipless.studies.study_folder import StudyFolder

ONE = DiscoveryConfig(method="lost", blocks=(-1,), kinds=("k",))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture
def coco(tmp_path):
    write_scenes(tmp_path / "scenes", "coco", train=3, val=1, size=64, objects="digits")
    return tmp_path / "scenes"


def changed(root, change) -> None:
    file = root / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("content", [oversized_text, huge_png], ids=["oversized text", "pixel limit"])
@pytest.mark.parametrize("what", ["image", "mask"])
def test_probing_goes_on_past_what_pillow_refuses(model, tmp_path, content, what) -> None:
    write_scenes(tmp_path / "scenes", "voc", train=4, val=3, size=64, objects="digits")
    train, val = (load_segmentation("voc", tmp_path / "scenes", split) for split in ("train", "val"))
    for data in (train, val):
        getattr(data.items[1], what).write_bytes(content())
    config = ProbeConfig(protocol="patch", size=64, epochs=1, multiscale=None)
    result = segment(model, train, val, config, out=tmp_path / "out", examples=2, progress=False)
    assert result.record()["probe"]["val"] == 2
    assert str(getattr(val.items[1], what)) in str(result.record())


@pytest.mark.parametrize("bbox", [[9, 9, -4, 3], [9, 9, float("inf"), 3], [9, 9, float("nan"), 3], [99, 99, 4, 3], []])
def test_discovery_goes_on_past_a_box_that_is_none(model, coco, tmp_path, bbox) -> None:
    spoilt = coco_boxes(coco, count=0).items[0].id
    changed(coco, lambda content: content["annotations"][0].update(bbox=bbox))
    result = discover(model, coco_boxes(coco, count=0), ONE, out=tmp_path / "out", examples=2, progress=False)
    assert list(result.unreadable) == [spoilt]
    assert result.n == 2


def test_what_an_earlier_version_searched_with_such_a_box_is_searched_again(model, coco, tmp_path, monkeypatch) -> None:
    spoilt = coco_boxes(coco, count=0).items[0].id
    changed(coco, lambda content: content["annotations"][0].update(bbox=[9, 9, -4, 3]))
    append = StudyFolder.append_journal

    def as_before(folder, line) -> None:
        found = {"block 1 k": [0, 0, 9, 9], "whole image": [0, 0, 64, 64]}
        append(folder, {"image": spoilt, "true": [[9, 9, 5, 12]], "found": found} if line["image"] == spoilt else line)

    monkeypatch.setattr(StudyFolder, "append_journal", as_before)
    discover(model, coco_boxes(coco, count=0), ONE, out=tmp_path / "out", examples=0, progress=False)
    monkeypatch.undo()
    result = discover(model, coco_boxes(coco, count=0), ONE, out=tmp_path / "out", examples=0, progress=False)
    assert list(result.unreadable) == [spoilt]
    assert result.n == 2


def test_images_of_one_name_are_scored_by_their_own_boxes(model, coco, tmp_path) -> None:
    whole = discover(model, coco_boxes(coco, count=0), ONE, out=tmp_path / "one", examples=0, progress=False)

    def into_folders(content) -> None:
        for number, image in enumerate(content["images"]):
            name = f"{number}/x.jpg"
            (coco / "images" / "train2014" / name).parent.mkdir()
            (coco / "images" / "train2014" / image["file_name"]).rename(coco / "images" / "train2014" / name)
            image["file_name"] = name

    changed(coco, into_folders)
    moved = discover(model, coco_boxes(coco, count=0), ONE, out=tmp_path / "two", examples=0, progress=False)
    assert moved.n == whole.n == 3
    assert {key: score.best for key, score in moved.scores.items()} == {k: s.best for k, s in whole.scores.items()}


def test_what_was_kept_of_tiffs_that_were_read_too_dark_is_not_used(tmp_path) -> None:
    def as_before(file) -> str:
        about = file.stat()
        return hashlib.sha256(repr((str(file.resolve()), about.st_size, about.st_mtime_ns)).encode()).hexdigest()

    for name, same in (("x.jpg", True), ("x.PNG", True), ("x.tif", False), ("x.TIFF", False)):
        (tmp_path / name).touch()
        assert (files_identity([tmp_path / name]) == as_before(tmp_path / name)) == same


def test_a_table_may_name_files_that_are_no_utf8(tmp_path) -> None:
    folder = StudyFolder(tmp_path, "pca", {})
    folder.finish({"images": ["caf\udce9"]}, "| caf\udce9 |")
    assert (folder.path / "table.md").read_text() == "| caf\\udce9 |\n"
    assert json.loads((folder.path / "result.json").read_text())["images"] == ["caf\udce9"]
