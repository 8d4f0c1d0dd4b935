"""Boxes that are none: each spoils its image, and neither the file nor the evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.pictures import jpeg

from skipless.data.dense import BoxData, BoxItem, ObjectBoxes, UnreadableItem, coco_boxes, voc_boxes
from skipless.errors import InputError

GOOD = "[1, 2, 4, 3]"


def coco(root: Path, bbox: str) -> BoxData:
    """Two images; the first has two boxes, one of which is given as JSON."""
    for name in ("a", "b"):
        jpeg(root / "train2014" / f"{name}.jpg")
    entries = [
        f'{{"image_id": {number}, "iscrowd": 0, "category_id": 1, "bbox": {box}}}'
        for number, box in ((1, GOOD), (1, bbox), (2, GOOD))
    ]
    images = json.dumps([{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}])
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2014.json").write_text(
        f'{{"images": {images}, "annotations": [{", ".join(entries)}], "categories": [{{"id": 1, "name": "dog"}}]}}'
    )
    return coco_boxes(root, count=0)


def voc(root: Path, sides: tuple[object, ...], head: bytes = b"") -> BoxData:
    jpeg(root / "JPEGImages" / "a.jpg")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\n")
    (root / "Annotations").mkdir()
    box = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))
    text = f"<annotation><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
    (root / "Annotations" / "a.xml").write_bytes(head + text.encode())
    return voc_boxes(root)


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ("[5, 5, -3, 2]", "its width or height is negative"),
        ("[5, 5, 3, -0.1]", "its width or height is negative"),
        ("[1e400, 0, 1, 1]", "lies beyond any image"),
        ("[0, 0, Infinity, 1]", "lies beyond any image"),
        ("[-Infinity, 0, Infinity, 1]", "lies beyond any image"),
        ("[NaN, 0, 1, 1]", "lies beyond any image"),
        ("[0, 0, NaN, 1]", "lies beyond any image"),
        ("[0, 0, 1e300, 1]", "lies beyond any image"),
        (f"[0, 0, 1{'0' * 400}, 1]", "lies beyond any image"),
        (f"[0.5, 0, 1{'0' * 400}, 1]", "int too large"),
        ("[1, 2, 3]", "not enough values"),
        ("[]", "not enough values"),
        ("null", "NoneType"),
        ('["1", "2", "3", "4"]', "not supported"),
        ("[[1], [2], [3], [4]]", "not supported"),
        ('{"x": 1}', "not enough values"),
    ],
)
def test_a_box_of_cocos_that_is_none_spoils_its_image_alone(tmp_path: Path, bbox: str, words: str) -> None:
    data = coco(tmp_path, bbox)
    with pytest.raises(UnreadableItem, match=rf"has for '.*a\.jpg' a box that is none \(bbox .* of a dog: .*{words}"):
        data.load(0)
    assert data.load(1)[1].boxes.tolist() == [[1, 2, 5, 5]]


@pytest.mark.parametrize("bbox", ["[11, 7, 4, 4]", "[-5, 0, 2, 2]", "[100, 100, 5, 5]", "[0, 0, 13.6, 8]"])
def test_a_box_outside_the_image_spoils_it(tmp_path: Path, bbox: str) -> None:
    data = coco(tmp_path, bbox)
    with pytest.raises(UnreadableItem, match=r"has boxes .* for '.*a\.jpg', which is 12 x 8 pixels"):
        data.load(0)


@pytest.mark.parametrize("bbox", ["[3, 3, 0, 2]", "[3, 3, 0.2, 0.2]", "[0, 0, 0, 0]", "[-0.6, 0, 13.2, 8]"])
def test_boxes_as_coco_has_them_are_kept(tmp_path: Path, bbox: str) -> None:
    assert len(coco(tmp_path, bbox).load(0)[1]) == 2


@pytest.mark.parametrize(
    "sides",
    [
        ("1e400", 1, 4, 4),
        (1, 1, "inf", 4),
        (1, "-Infinity", 4, 4),
        (1, 1, "nan", 4),
        ("NaN", 1, 4, 4),
        (1, 1, "1e300", 4),
        (1, 1, "9" * 5000, 4),
        (5, 1, 4, 4),
        (1, 5, 4, 4),
    ],
)
def test_a_box_of_vocs_that_is_none_is_named(tmp_path: Path, sides: tuple[object, ...]) -> None:
    data = voc(tmp_path, sides)
    with pytest.raises(
        UnreadableItem, match=r"a\.xml' is no readable VOC annotation \(.*(beyond any|before it starts)"
    ):
        data.load(0)


@pytest.mark.parametrize("encoding", ["foo", "rot13", "gbk", "cp037", "hex"])
def test_an_annotation_in_an_unknown_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    data = voc(tmp_path, (1, 1, 4, 4), f'<?xml version="1.0" encoding="{encoding}"?>'.encode())
    with pytest.raises(UnreadableItem, match=r"a\.xml' is no readable VOC annotation"):
        data.load(0)


def test_an_annotation_may_have_a_mark(tmp_path: Path) -> None:
    assert len(voc(tmp_path, (1, 1, 4, 4), b"\xef\xbb\xbf").load(0)[1]) == 1


def test_another_readers_boxes_must_be_whole_too(tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg")
    none = np.zeros(1, dtype=bool)
    for box in ([5, 1, 3, 2], [1, 5, 2, 3], [0, 0, 20, 2]):
        objects = ObjectBoxes(np.array([box]), ("dog",), none, none)
        data = BoxData("mine", "all", (BoxItem("a", tmp_path / "a.jpg", tmp_path),), lambda _, found=objects: found)
        with pytest.raises(UnreadableItem, match="has boxes"):
            data.load(0)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"images": ' * 50_000, "\x00", "Infinity", '"x"'])
def test_json_of_any_kind_is_read_or_refused(tmp_path: Path, content: str) -> None:
    coco(tmp_path, GOOD)
    (tmp_path / "annotations" / "instances_train2014.json").write_text(content)
    with pytest.raises(InputError, match=r"instances_train2014\.json'.*fetch it again"):
        coco_boxes(tmp_path, count=0)
