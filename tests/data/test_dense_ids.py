import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.pictures import jpeg, png

from skipless.data.dense import (
    IGNORE,
    UnreadableItem,
    ade20k_segmentation,
    coco_boxes,
    coco_stuff_segmentation,
    load_boxes,
    load_segmentation,
)
from skipless.data.dense.ade20k_classes import ADE20K_CLASSES, FULL_INDICES, SECOND_INDICES
from skipless.data.dense.coco_classes import COARSE_CLASSES, COARSE_OF, COCO_LABELS, COCO_STUFF_CLASSES
from skipless.errors import InputError


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for folder, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        jpeg(root / "images" / folder / f"{name}.jpg")
        png(root / "annotations" / folder / f"{name}.png", np.arange(96).reshape(8, 12) * 150 // 95)
    return root


def test_ade20k_ignores_zero_and_counts_from_one(ade: Path) -> None:
    for root in (ade, ade.parent):
        data = load_segmentation("ade20k", root, "val")
        labels = data.load(0)[1]
        assert (len(data.classes), data.classes[0], data.classes[149]) == (150, "wall", "flag")
        assert (labels[0, 0], labels[-1, -1]) == (IGNORE, 149)
        assert (labels.ravel()[1:] == np.arange(1, 96) * 150 // 95 - 1).all()
    png(ade / "annotations" / "training" / "ADE_train_00000001.png", np.full((8, 12), 151))
    with pytest.raises(UnreadableItem, match="holds label 151, which ADE20K with its 150 classes"):
        ade20k_segmentation(ade).load(0)


def test_ade20k_takes_its_classes_from_the_list(ade: Path) -> None:
    info = ade / "objectInfo150.txt"
    info.write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t3\t1\t1\tbed \n2 \t0.1\t3\t1\t0\tcar, auto\n")
    data = ade20k_segmentation(ade)
    assert data.classes == ("bed", "car")
    with pytest.raises(UnreadableItem, match="holds label 3, which ADE20K with its 2 classes"):
        data.load(0)
    for wrong in ("Idx\tName\n2\tbed\n", "Idx\tName\none\tbed\n", "Idx\tName\n"):
        info.write_text(wrong)
        with pytest.raises(InputError, match=r"objectInfo150.txt'.*fetch the file again"):
            ade20k_segmentation(ade)


@pytest.mark.parametrize("where", ["ADE20K_2021_17_01/images/ADE/training/urban/street", "images/training/s/street"])
def test_ade20k_in_full_is_reduced_to_150_classes(tmp_path: Path, where: str) -> None:
    folder = tmp_path / where
    jpeg(folder / "ADE_train_00016869.jpg", (6, 1))
    # Sky is 2420 = 9 * 256 + 116, person 1831 = 7 * 256 + 39, door 774 and 783; 597, a container, is not among them.
    pixels = [[(90, 116, 1), (70, 39, 2), (30, 6, 3), (30, 15, 3), (20, 85, 9), (0, 0, 0)]]
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(folder / "ADE_train_00016869_seg.png")
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(folder / "ADE_train_00016869_parts_1.png")
    data = load_segmentation("ade20k-full", tmp_path, "train")
    assert [item.id for item in data.items] == ["ADE_train_00016869"]
    names = [data.classes[label] if label != IGNORE else None for label in data.load(0)[1][0]]
    assert names == ["sky", "person", "door", "door", None, None]


def test_class_tables_are_whole() -> None:
    assert len(set(ADE20K_CLASSES)) == len(set(FULL_INDICES)) == 150
    assert set(SECOND_INDICES) < set(ADE20K_CLASSES)
    assert not set(SECOND_INDICES.values()) & set(FULL_INDICES)
    assert (len(set(COCO_LABELS)), len(COCO_STUFF_CLASSES), len(COARSE_CLASSES)) == (182, 171, 27)
    assert len(COARSE_OF) == 182
    assert set(COARSE_OF) == set(range(27))
    members = {name: {COCO_LABELS[i] for i in range(182) if COARSE_OF[i] == c} for c, name in enumerate(COARSE_CLASSES)}
    assert members["sky-stuff"] == {"clouds", "sky-other"}
    assert members["person-things"] == {"person"}
    assert members["window-stuff"] == {"window-blind", "window-other"}
    assert all(("things" in name) == (COCO_LABELS.index(found) < 91) for name in members for found in members[name])


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """One image with the download's ids: person 0, stop sign 12 (11 is not used), banner 91, wood 181."""
    jpeg(tmp_path / "images" / "train2017" / "000000000009.jpg", (5, 1))
    png(tmp_path / "stuffthingmaps" / "train2017" / "000000000009.png", np.array([[0, 12, 91, 181, 255]]))
    return tmp_path


def test_coco_stuff_closes_the_gaps_of_its_ids(coco: Path) -> None:
    data = load_segmentation("coco-stuff", coco)
    labels = data.load(0)[1][0]
    assert labels.tolist() == [0, 11, 80, 170, IGNORE]
    assert [data.classes[label] for label in labels[:4]] == ["person", "stop sign", "banner", "wood"]
    coarse = load_segmentation("coco-stuff-27", coco)
    assert [coarse.classes[label] for label in coarse.load_mask(0)[0][:4]] == [
        "person-things", "outdoor-things", "textile-stuff", "solid-stuff",
    ]  # fmt: skip
    assert coarse.name == "COCO-Stuff 27"
    png(coco / "stuffthingmaps" / "train2017" / "000000000009.png", np.array([[0, 11, 91, 181, 255]]))
    with pytest.raises(UnreadableItem, match="holds label 11, which COCO-Stuff 171"):
        data.load(0)


def test_coco_stuff_reads_the_other_numbering_too(coco: Path) -> None:
    raw = {name: load_segmentation(name, coco).load_mask(0).tolist() for name in ("coco-stuff", "coco-stuff-27")}
    shutil.move(coco / "stuffthingmaps", coco / "annotations")
    folder = coco / "annotations" / "train2017"
    for name, labels in raw.items():
        assert load_segmentation(name, coco).load_mask(0).tolist() == labels
    png(folder / "000000000009_labelTrainIds.png", np.array([[0, 11, 80, 170, 255]]))
    (folder / "000000000009.png").write_bytes(b"")  # not read any more
    for name, labels in raw.items():
        assert load_segmentation(name, coco).load_mask(0).tolist() == labels


def test_coco_stuff_takes_a_published_list(coco: Path) -> None:
    (coco / "list.txt").write_text("000000000042\n000000000009\n")
    data = coco_stuff_segmentation(coco, listing=coco / "list.txt", coarse=True)
    assert [item.id for item in data.items] == ["000000000042", "000000000009"]
    with pytest.raises(UnreadableItem, match=r"000000000042.jpg"):
        data.load(0)


INSTANCES = {
    "images": [
        {"id": 25, "file_name": "COCO_train2014_000000000025.jpg"},
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg"},
        {"id": 30, "file_name": "COCO_train2014_000000000030.jpg"},
    ],
    "annotations": [
        {"image_id": 9, "iscrowd": 0, "bbox": [1.49, 2.51, 4.0, 3.0], "category_id": 90},
        {"image_id": 9, "iscrowd": 1, "bbox": [0, 0, 12, 8], "category_id": 1},
        {"image_id": 9, "iscrowd": 0, "bbox": [0.0, 0.0, 12.3, 8.4], "category_id": 1},
        {"image_id": 25, "iscrowd": 1, "bbox": [0, 0, 12, 8], "category_id": 1},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
}


@pytest.fixture
def coco14(tmp_path: Path) -> Path:
    for number in (9, 25, 30):
        jpeg(tmp_path / "train2014" / f"COCO_train2014_{number:012}.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text(json.dumps(INSTANCES))
    return tmp_path


def test_coco20k_is_a_list_over_train2014(coco14: Path) -> None:
    with pytest.raises(InputError, match=r"no 'coco_20k_filenames.txt' in .*LOST repository.*or give a count"):
        load_boxes("coco20k", coco14)
    (coco14 / "coco_20k_filenames.txt").write_text(
        "train2014/COCO_train2014_000000000025.jpg\ntrain2014/COCO_train2014_000000000009.jpg\n"
    )
    data = load_boxes("coco20k", coco14)
    assert (data.name, [item.id[-2:] for item in data.items]) == ("COCO20k", ["25", "09"])
    image, objects = data.load(1)
    assert objects.boxes.tolist() == [[1, 3, 5, 6], [0, 0, 12, 8]]  # rounded, without the crowd
    assert objects.classes == ("toothbrush", "person")
    assert image.size == (12, 8)
    assert len(data.load_objects(0)) == 0  # a crowd alone
    pickle.loads(pickle.dumps(data)).load(0)


def test_without_the_list_a_seeded_draw_says_that_it_is_another_set(coco14: Path) -> None:
    data = coco_boxes(coco14, count=2, seed=3)
    assert data.name == "COCO train2014 (2 images by seed 3, not COCO20k)"
    assert [item.id for item in data.items] == [item.id for item in coco_boxes(coco14, count=2, seed=3).items]
    assert len(coco_boxes(coco14, count=0)) == 3


def test_lists_and_json_files_must_belong_together(coco14: Path) -> None:
    listing, file = coco14 / "mine.txt", coco14 / "annotations" / "instances_train2014.json"
    with pytest.raises(InputError, match="no list '.*mine.txt'"):
        coco_boxes(coco14, listing=listing)
    listing.write_text("9\n000000000030\n")
    assert coco_boxes(coco14, listing=listing).name == "COCO train2014 (mine.txt)"
    listing.write_text("9\n10\n")
    with pytest.raises(InputError, match=r"mine.txt' names image 10, which '.*train2014.json' does not have"):
        coco_boxes(coco14, listing=listing)
    listing.write_text("photo.jpg\n")
    with pytest.raises(InputError, match=r"mine.txt' names no COCO image"):
        coco_boxes(coco14, listing=listing)
    stray = INSTANCES | {"annotations": [{"image_id": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1], "category_id": 1}]}
    for content, message in (
        ("{", "cannot read"),
        ("[]", "holds a list, not an object"),
        ('{"images": []}', "is no COCO instances file .KeyError: 'categories'"),
        (json.dumps(stray), "annotates image 1, which it does not list"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            coco_boxes(coco14, count=0)
    file.unlink()
    with pytest.raises(InputError, match=r"cannot read '.*instances_train2014.json'"):
        coco_boxes(coco14, count=0)
