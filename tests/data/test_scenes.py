import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.coco_runs import decode_runs

from skipless.data import ImageConfig, load_images
from skipless.data.dense import (
    IGNORE,
    BoxData,
    SegmentationData,
    ade20k_segmentation,
    coco_boxes,
    coco_stuff_segmentation,
    load_boxes,
    voc_boxes,
    voc_segmentation,
)
from skipless.data.memory import MemoryImages
from skipless.data.scenes import Scene, Sources, compose, load_sources, sources, write_scenes
from skipless.data.scenes.files import jpeg
from skipless.data.scenes.layouts import OBJECT_CLASSES, PHOTO_CLASSES, encode_rle
from skipless.data.scenes.write import VERSION

TRAIN, VAL, SIZE, SEED = 11, 10, 48, 3


@pytest.fixture(scope="module")
def digits() -> dict[str, Sources]:
    return load_sources("digits")[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scenes")
    for layout in ("voc", "ade20k", "coco", "imagenet"):
        write_scenes(
            root / layout, layout, train=TRAIN, val=VAL, size=SIZE, seed=SEED, objects="digits", shapes="mixed"
        )
    return {layout: root / layout for layout in ("voc", "ade20k", "coco", "imagenet")}


def scenes_of(digits: dict[str, Sources], split: str) -> list[Scene]:
    count = TRAIN if split == "train" else VAL
    return [compose(digits[split], split, i, size=SIZE, seed=SEED, shapes="mixed") for i in range(count)]


def named_mask(data: SegmentationData, index: int) -> np.ndarray:
    names = np.array([*data.classes, *[""] * (256 - len(data.classes))], dtype=object)
    return names[data.load(index)[1]]


def known_mask(scene: Scene, layout: str) -> np.ndarray:
    """Name every pixel, naively: the photo under it, or the object on it."""
    names = np.empty(scene.textures.shape, dtype=object)
    for row, column in np.ndindex(names.shape):
        names[row, column] = PHOTO_CLASSES[layout][scene.textures[row, column]]
        for shown in scene.objects:
            if shown.mask[row, column]:
                names[row, column] = OBJECT_CLASSES[layout][shown.label]
    return names


def masks_of(data: SegmentationData) -> list[np.ndarray]:
    return [data.load_mask(index) for index in range(len(data))]


def edges(numbers: np.ndarray) -> np.ndarray:
    """Mark pixels with another number above, below, left or right, naively."""
    height, width = numbers.shape
    marked = np.zeros(numbers.shape, dtype=bool)
    for row, column in np.ndindex(numbers.shape):
        for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= y < height and 0 <= x < width and numbers[y, x] != numbers[row, column]:
                marked[row, column] = True
    return marked


READERS = {"voc": voc_segmentation, "ade20k": ade20k_segmentation, "coco": coco_stuff_segmentation}


@pytest.mark.parametrize("layout", ["voc", "ade20k", "coco"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_are_read_back_exactly(
    written: dict[str, Path], digits: dict[str, Sources], layout: str, split: str
) -> None:
    data, scenes, ignored = READERS[layout](written[layout], split), scenes_of(digits, split), 0
    assert len(data) == len(scenes)
    for index, scene in enumerate(scenes):
        read, known = named_mask(data, index), known_mask(scene, layout)
        if layout == "voc":
            known[edges(scene.instances())] = ""
        else:
            known[edges(scene.textures) & (scene.instances() == 0)] = ""
        assert (read == known).all()
        ignored += (known == "").sum()
        assert np.abs(np.asarray(data.load(index)[0]).astype(int) - scene.image).mean() < 12  # JPEG's loss
    assert ignored > 0


def boxes_of(scene: Scene) -> list[list[int]]:
    boxes = []
    for shown in scene.objects:
        rows, columns = np.nonzero(shown.mask)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return [[int(side) for side in box] for box in boxes]


@pytest.mark.parametrize(
    ("layout", "split", "read"),
    [
        ("voc", "train", lambda root: voc_boxes(root, "train")),
        ("voc", "val", lambda root: voc_boxes(root, "val")),
        ("coco", "train", lambda root: load_boxes("coco20k", root)),
        ("coco", "train", lambda root: coco_boxes(root, "train2017", count=0)),
        ("coco", "val", lambda root: coco_boxes(root, "val2017", count=0)),
    ],
)
def test_boxes_are_read_back_exactly(
    written: dict[str, Path], digits: dict[str, Sources], layout: str, split: str, read: object
) -> None:
    data: BoxData = read(written[layout])
    scenes = scenes_of(digits, split)
    assert len(data) == len(scenes)
    for index, scene in enumerate(scenes):
        image, objects = data.load(index)
        assert image.size == scene.textures.shape[::-1]
        assert objects.boxes.tolist() == boxes_of(scene)
        assert objects.classes == tuple(OBJECT_CLASSES[layout][shown.label] for shown in scene.objects)
        if layout == "voc":
            assert objects.difficult.tolist() == [shown.difficult for shown in scene.objects]
            assert objects.truncated.tolist() == [shown.truncated for shown in scene.objects]


def test_voc_lists_hold_every_scene_once(written: dict[str, Path]) -> None:
    for read in (voc_segmentation, voc_boxes):
        train, val, both = ([item.id for item in read(written["voc"], s).items] for s in ("train", "val", "trainval"))
        assert both == train + val
        assert len(set(both)) == TRAIN + VAL


def test_coco_masks_of_instances_are_exact(written: dict[str, Path], digits: dict[str, Sources]) -> None:
    content = json.loads((written["coco"] / "annotations" / "instances_val2017.json").read_text())
    shown = [shown for scene in scenes_of(digits, "val") for shown in scene.objects]
    assert len(content["annotations"]) == len(shown)
    for entry, one in zip(content["annotations"], shown, strict=True):
        assert np.array_equal(decode_runs(entry["segmentation"]), one.mask)
        assert entry["area"] == one.mask.sum()
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    assert all(entry["segmentation"]["size"] == sizes[entry["image_id"]] for entry in content["annotations"])
    train = json.loads((written["coco"] / "annotations" / "instances_train2017.json").read_text())
    assert not sizes.keys() & {image["id"] for image in train["images"]}
    categories = {category["id"]: category for category in content["categories"]}
    assert len(categories) == 80
    assert categories[90] == {"supercategory": "indoor", "id": 90, "name": "toothbrush"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools with numpy 2
def test_pycocotools_agrees_with_the_runs() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    runs = encode_rle(mask)
    assert np.array_equal(tools.decode(tools.frPyObjects(runs, *mask.shape)).astype(bool), mask)


@pytest.mark.parametrize("seed", range(5))
def test_runs_are_decoded_to_the_mask(seed: int) -> None:
    mask = np.random.default_rng(seed).random((5, 8)) > 0.1 * seed + 0.3
    assert np.array_equal(decode_runs(encode_rle(mask)), mask)
    for mask in (np.zeros((2, 3), dtype=bool), np.ones((2, 3), dtype=bool)):
        assert np.array_equal(decode_runs(encode_rle(mask)), mask)


def test_coco_stuff_is_the_same_in_both_numberings(written: dict[str, Path], tmp_path: Path) -> None:
    data = coco_stuff_segmentation(written["coco"], coarse=False)
    shutil.copytree(written["coco"] / "stuffthingmaps", tmp_path / "stuffthingmaps")
    os.symlink(written["coco"] / "images", tmp_path / "images")
    raw = coco_stuff_segmentation(tmp_path)
    assert raw.items[0].mask != data.items[0].mask
    assert all(np.array_equal(raw.load_mask(i), data.load_mask(i)) for i in range(len(data)))


def test_ade20k_lists_its_classes(written: dict[str, Path]) -> None:
    lines = (written["ade20k"] / "ADEChallengeData2016" / "objectInfo150.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0] == ["Idx", "Ratio", "Train", "Val", "Name"]
    assert (len(rows), rows[1][0], rows[1][-1], rows[150][-1]) == (151, "1", "wall", "flag")
    data = ade20k_segmentation(written["ade20k"], "val")
    present = sum(2 in np.unique(np.asarray(Image.open(item.mask))) for item in data.items)
    assert [int(count) for count in rows[2][2:4]][1] == present  # buildings
    everything = [
        read for split in ("train", "val") for read in masks_of(ade20k_segmentation(written["ade20k"], split))
    ]
    labelled = np.mean([np.mean(labels != IGNORE) for labels in everything])
    assert sum(float(row[1]) for row in rows[1:]) == pytest.approx(labelled, abs=0.001)


def test_the_imagenet_layout_trains_as_a_folder(written: dict[str, Path], digits: dict[str, Sources]) -> None:
    data = load_images(ImageConfig(data=str(written["imagenet"]), image_size=32, augmentation="none"))
    assert data.classes == tuple("0123456789")
    assert data.val.labels.bincount(minlength=10).tolist() == [1] * 10
    assert len(data.train) == TRAIN
    scene = compose(digits["val"], "val", 7, size=SIZE, seed=SEED, shapes="mixed", main=7)
    assert (written["imagenet"] / "val" / "7" / "val_00000007.jpg").read_bytes() == jpeg(scene.image)
    assert max(scene.objects, key=lambda shown: shown.mask.sum()).label == 7


def test_another_drawing_needs_another_version(digits: dict[str, Sources]) -> None:
    scenes = [compose(digits["train"], "train", i, size=96, seed=0) for i in range(6)]
    assert (VERSION, [[shown.label for shown in scene.objects] for scene in scenes]) == (
        1,
        [[0, 0, 8], [3], [7, 6, 5, 0], [8, 5], [0], [3]],
    )


def test_more_scenes_leave_the_first_ones_as_they_were(digits: dict[str, Sources]) -> None:
    forward = [compose(digits["val"], "val", i, size=32, seed=0).image for i in range(4)]
    backward = [compose(digits["val"], "val", i, size=32, seed=0).image for i in reversed(range(4))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(forward, backward, strict=True))


def test_train_and_val_share_neither_objects_nor_photos(digits: dict[str, Sources]) -> None:
    train, val = ({image.tobytes() for image in digits[split].images} for split in ("train", "val"))
    assert not train & val
    for left, right in zip(digits["train"].photos, digits["val"].photos, strict=True):
        assert left.shape[1] + right.shape[1] == 640
        columns = {column.tobytes() for column in left.transpose(1, 0, 2)}
        assert not columns & {column.tobytes() for column in right.transpose(1, 0, 2)}


def test_scenes_are_what_they_promise(digits: dict[str, Sources]) -> None:
    scenes = [compose(digits["train"], "train", i, size=96, seed=0) for i in range(150)]
    objects = [shown for scene in scenes for shown in scene.objects]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    assert {shown.label for shown in objects} == set(range(10))
    assert all(sum(shown.mask.astype(int) for shown in scene.objects).max() == 1 for scene in scenes)
    sides = np.array(
        [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (shown.box for shown in objects if not shown.truncated)]
    )
    assert sides.max() < 0.75 * 96
    assert np.median(sides) > 0.25 * 96
    for flag in ("truncated", "occluded", "difficult"):
        share = np.mean([getattr(shown, flag) for shown in objects])
        assert 0.005 < share < 0.6, flag
    assert 0.3 < np.mean([len(np.unique(scene.textures)) == 2 for scene in scenes]) < 0.7
    assert np.std([scene.image.mean() for scene in scenes]) > 10  # the backgrounds vary


def test_front_objects_hide_what_lies_behind(digits: dict[str, Sources]) -> None:
    scene = next(
        scene
        for scene in (compose(digits["train"], "train", i, size=96, seed=1) for i in range(100))
        if any(shown.occluded for shown in scene.objects)
    )
    hidden = next(number for number, shown in enumerate(scene.objects) if shown.occluded)
    grown = edges(scene.objects[hidden].mask) & ~scene.objects[hidden].mask
    in_front = sum((shown.mask for shown in scene.objects[:hidden]), np.zeros_like(grown))
    assert (grown & in_front).any()
    assert not scene.objects[0].occluded


def garments() -> MemoryImages:
    """Ten kinds of bars, each with a dark hole, which belongs to the object."""
    images = torch.zeros(30, 1, 28, 28, dtype=torch.uint8)
    for index in range(30):
        images[index, 0, 4:24, 4 : 9 + index % 10] = 150 + index
        images[index, 0, 10:14, 6:8] = 0
    return MemoryImages(images, torch.arange(30) % 10, torch.zeros(1), torch.ones(1))


def test_fashion_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load_fashion", lambda: (garments(), garments(), tuple("abcdefghij")))
    monkeypatch.setattr(sources, "_available", lambda: "fashion")
    report = write_scenes(tmp_path / "out", "imagenet", train=10, val=10, size=32)
    assert report.objects == "fashion"
    loaded, classes = load_sources("fashion")
    assert classes == tuple("abcdefghij")
    cutout = np.asarray(loaded["train"].cutout(3))
    assert cutout[..., 0].max() == 153
    assert set(np.unique(cutout[..., 1])) == {0, 255}
    assert (cutout[1:-1, 1:-1, 1] == 255).all()  # the hole is filled
    number = load_sources("digits")[0]["train"]
    assert (np.asarray(number.cutout(0))[..., 1] > 127).sum() == (number.images[0] > 75).sum()


def test_auto_takes_digits_where_there_is_no_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_sources("auto")[0]["train"].kind == "digits"
    raw = tmp_path / "cache" / "skipless" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").touch()
    assert sources._available() == "fashion"


def test_ignored_pixels_are_few(written: dict[str, Path]) -> None:
    for layout, read in READERS.items():
        data = read(written[layout], "train")
        share = np.mean([np.mean(data.load_mask(index) == IGNORE) for index in range(len(data))])
        assert 0 < share < 0.25, layout
