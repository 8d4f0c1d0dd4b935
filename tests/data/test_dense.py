import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference.pictures import damage, jpeg, png
from torchvision import datasets

from skipless.data.captioned import captioned_grid
from skipless.data.dense import (
    IGNORE,
    UnreadableItem,
    ade20k_full_segmentation,
    ade20k_segmentation,
    coco_boxes,
    coco_stuff_segmentation,
    colour_labels,
    contact_sheet,
    load_boxes,
    load_segmentation,
    voc_boxes,
    voc_segmentation,
)
from skipless.errors import InputError

VOC_OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>{truncated}</truncated>{difficult}
<bndbox><xmax>{box[2]}</xmax><xmin>{box[0]}</xmin><ymax>{box[3]}</ymax><ymin>{box[1]}</ymin></bndbox>{part}</object>"""
PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"


def voc_object(box: tuple, name: str = "dog", *, difficult: int | None = 0, truncated: int = 0, part: str = "") -> str:
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return VOC_OBJECT.format(name=name, box=box, difficult=flag, truncated=truncated, part=part)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images as VOC has them, 12 x 8 pixels, and an empty third one."""
    root = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    objects = {
        "2007_000032": [
            voc_object((1, 1, 12, 8)),
            voc_object((2, 3, 5, 6), "person", difficult=1, part=PART),
            voc_object(("4.7", 2, 7, 4), "cat", difficult=None, truncated=1),
        ],
        "2008_000001": [voc_object((3, 3, 3, 3))],
        "2008_000002": [],
    }
    ids = np.zeros((8, 12))
    ids[2:5, 3:9], ids[2, 3:9], ids[0, 0] = 15, 255, 20
    for name, found in objects.items():
        jpeg(root / "JPEGImages" / f"{name}.jpg", mode="L" if name == "2008_000001" else "RGB")
        png(root / "SegmentationClass" / f"{name}.png", ids, palette=True)
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<annotation><filename>{name}.jpg</filename>{''.join(found)}</annotation>")
    for kind in ("Segmentation", "Main"):
        (root / "ImageSets" / kind).mkdir(parents=True)
        (root / "ImageSets" / kind / "train.txt").write_text("2008_000001\n2007_000032\n")
        (root / "ImageSets" / kind / "trainval.txt").write_text("2007_000032\n2008_000001\n2008_000002\n")
    (root / "ImageSets" / "Main" / "dog_train.txt").write_text("2007_000032  1\n")
    return root


@pytest.mark.parametrize("above", [0, 1, 2])
def test_voc_is_found_from_any_folder_above(voc: Path, above: int) -> None:
    root = [voc, *voc.parents][above]
    data = voc_segmentation(root, "train")
    assert [item.id for item in data.items] == ["2008_000001", "2007_000032"]
    assert len(voc_boxes(root)) == 3


def test_voc07_is_the_same_layout(voc: Path) -> None:
    shutil.move(voc, voc.parent / "VOC2007")
    data = load_boxes("voc07", voc.parents[1])
    assert (data.name, data.split, len(data)) == ("VOC2007", "trainval", 3)
    assert len(data.load(0)[1]) == 3


def test_voc_masks_are_ids_not_colours(voc: Path) -> None:
    data = load_segmentation("voc", voc, "train")
    image, labels = data.load(1)
    assert (data.name, len(data.classes), data.classes[15]) == ("VOC2012", 21, "person")
    assert (image.mode, image.size, labels.shape, labels.dtype) == ("RGB", (12, 8), (8, 12), np.uint8)
    assert np.unique(labels).tolist() == [0, 15, 20, IGNORE]
    assert labels[2, 3] == data.ignore
    assert data.load(0)[0].mode == "RGB"  # a grey JPEG


def test_voc_boxes_are_edges_from_zero(voc: Path) -> None:
    data = load_boxes("voc12", voc)
    image, objects = data.load(0)
    assert image.size == (12, 8)
    # The first covers the image; xmin 4.7 is 5 (VOC2012 has such coordinates); a person's head is no object.
    assert objects.boxes.tolist() == [[0, 0, 12, 8], [1, 2, 5, 6], [4, 1, 7, 4]]
    assert objects.classes == ("dog", "person", "cat")
    assert objects.difficult.tolist() == [False, True, False]
    assert objects.truncated.tolist() == [False, False, True]
    assert data.load_objects(1).boxes.tolist() == [[2, 2, 3, 3]]
    assert data.load_objects(2).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("difficult", "truncated", "kept", "name"),
    [
        (True, True, ("dog", "person", "cat"), "VOC2012"),
        (False, True, ("dog", "cat"), "VOC2012 without difficult"),
        (False, False, ("dog",), "VOC2012 without difficult and truncated"),
    ],
)
def test_hard_objects_are_dropped_on_demand(
    voc: Path, difficult: bool, truncated: bool, kept: tuple[str, ...], name: str
) -> None:
    data = voc_boxes(voc, keep_difficult=difficult, keep_truncated=truncated)
    assert data.name == name
    assert data.load_objects(0).classes == kept


def test_torchvision_reads_the_same_voc(voc: Path) -> None:
    theirs = datasets.VOCSegmentation(str(voc.parents[1]), year="2012", image_set="train")
    for index, (image, mask) in enumerate(theirs):
        ours = voc_segmentation(voc, "train").load(index)
        assert np.array_equal(np.asarray(ours[0]), np.asarray(image))
        assert np.array_equal(ours[1], np.asarray(mask))
    detection = datasets.VOCDetection(str(voc.parents[1]), year="2012", image_set="train")
    for index, (_, target) in enumerate(detection):
        found = target["annotation"]["object"]
        objects = voc_boxes(voc, "train").load_objects(index)
        assert tuple(entry["name"] for entry in found) == objects.classes
        sides = [[round(float(entry["bndbox"][side])) for side in ("xmin", "ymin", "xmax", "ymax")] for entry in found]
        assert (np.array(sides) - [1, 1, 0, 0]).tolist() == objects.boxes.tolist()


@pytest.mark.parametrize("line", ["2007_000032", "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"])
def test_trainaug_has_masks_of_its_own(voc: Path, line: str) -> None:
    (voc / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"no folder '.*SegmentationClassAug'; expected the masks that belong to"):
        voc_segmentation(voc, "trainaug")
    png(voc / "SegmentationClassAug" / "2007_000032.png", np.full((8, 12), 7))
    assert (voc_segmentation(voc, "trainaug").load_mask(0) == 7).all()


def test_a_missing_layout_says_what_was_expected(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no VOC2007 in .* expected JPEGImages, Annotations and ImageSets"):
        voc_boxes(voc.parent, year=2007)
    with pytest.raises(InputError, match=r"cannot read the list '.*Segmentation/val.txt'.*there are train, trainval"):
        voc_segmentation(voc, "val")
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("\n")
    with pytest.raises(InputError, match="trainval.txt' is empty"):
        voc_boxes(voc)
    with pytest.raises(InputError, match="ADEChallengeData2016/images/training"):
        ade20k_segmentation(tmp_path)
    with pytest.raises(InputError, match="ADE20K_2021_17_01/images/ADE/validation"):
        ade20k_full_segmentation(tmp_path, "val")
    with pytest.raises(InputError, match="images/train2017.*train2017.zip"):
        coco_stuff_segmentation(tmp_path)
    with pytest.raises(InputError, match="no folder '.*/nowhere'"):
        coco_boxes(tmp_path / "nowhere")


@pytest.mark.parametrize("how", ["missing", "cut", "empty", "html"])
@pytest.mark.parametrize("what", ["JPEGImages/2007_000032.jpg", "SegmentationClass/2007_000032.png"])
def test_an_evaluation_goes_on_past_a_damaged_file(voc: Path, what: str, how: str) -> None:
    damage(voc / what, how)
    data, failed, done = voc_segmentation(voc, "trainval"), [], []
    for index in range(len(data)):
        try:
            done.append(data.load(index)[1].shape)
        except UnreadableItem as error:
            failed.append(error)
    assert len(done) == 2
    assert [error.path for error in failed] == [voc / what]
    assert Path(what).name in str(failed[0])


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
def test_a_damaged_annotation_is_named(voc: Path, how: str) -> None:
    damage(voc / "Annotations" / "2007_000032.xml", how)
    with pytest.raises(UnreadableItem, match=r"2007_000032.xml' is no readable VOC annotation") as raised:
        voc_boxes(voc).load(0)
    assert raised.value.path == voc / "Annotations" / "2007_000032.xml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc_object((5, 1, 4, 2)), "box 5, 1, 4, 2 ends before it starts"),
        (voc_object(("a", 1, 4, 2)), "could not convert"),
        ("<object><name>dog</name></object>", "lacks 'bndbox/xmin'"),
        (voc_object((1, 1, 2, 2), name=" "), "lacks 'name'"),
    ],
)
def test_an_annotation_must_make_sense(voc: Path, text: str, message: str) -> None:
    (voc / "Annotations" / "2007_000032.xml").write_text(f"<annotation>{text}</annotation>")
    with pytest.raises(UnreadableItem, match=message):
        voc_boxes(voc).load_objects(0)


def test_sizes_must_match(voc: Path) -> None:
    jpeg(voc / "JPEGImages" / "2007_000032.jpg", (8, 12))  # turned
    with pytest.raises(UnreadableItem, match=r"000032.png' is 12 x 8 pixels, its image .*000032.jpg' 8 x 12"):
        voc_segmentation(voc, "train").load(1)
    with pytest.raises(UnreadableItem, match=r"000032.xml' has boxes .* which is 8 x 12 pixels"):
        voc_boxes(voc).load(0)


def test_masks_of_other_classes_are_refused(voc: Path) -> None:
    file = voc / "SegmentationClass" / "2007_000032.png"
    png(file, np.full((8, 12), 21))
    with pytest.raises(UnreadableItem, match=r"000032.png' holds label 21, which VOC2012 with its 21 classes"):
        voc_segmentation(voc, "train").load_mask(1)
    Image.new("RGB", (12, 8), (192, 128, 128)).save(file)  # the palette's colours in place of ids
    with pytest.raises(UnreadableItem, match=r"is of mode 'RGB', not ids"):
        voc_segmentation(voc, "train").load_mask(1)


def test_cmyk_images_are_read(voc: Path) -> None:
    jpeg(voc / "JPEGImages" / "2007_000032.jpg", mode="CMYK")
    assert voc_segmentation(voc, "train").load(1)[0].mode == "RGB"


def test_a_set_travels_to_another_process(voc: Path) -> None:
    for data in (voc_segmentation(voc, "train"), voc_boxes(voc)):
        again = pickle.loads(pickle.dumps(data))
        assert np.array_equal(np.asarray(again.load(0)[0]), np.asarray(data.load(0)[0]))
    error = pickle.loads(pickle.dumps(UnreadableItem("message", voc)))
    assert (str(error), error.path) == ("message", voc)


def test_a_sample_depends_on_seed_and_names_alone(voc: Path) -> None:
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("".join(f"2009_{i:06}\n" for i in range(500)))
    data = voc_segmentation(voc, "val")
    ids = [item.id for item in data.sample(100, seed=1).items]
    assert ids == sorted(ids)
    assert len(set(ids)) == 100
    assert set(ids) > {item.id for item in data.sample(40, seed=1).items}
    assert ids != [item.id for item in data.sample(100, seed=2).items]
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("".join(f"2009_{499 - i:06}\n" for i in range(500)))
    assert {item.id for item in load_segmentation("voc", voc, "val", sample=100, seed=1).items} == set(ids)
    for count in (0, 501):
        with pytest.raises(InputError, match=f"cannot sample {count} of the 500 images of VOC2012; give 1 to 500"):
            data.sample(count)
    assert len(load_boxes("voc12", voc, sample=2)) == 2


def test_names_are_checked(unchecked: None, voc: Path) -> None:
    with pytest.raises(InputError, match="no segmentation set 'cityscapes'; there are voc, ade20k"):
        load_segmentation("cityscapes", voc)
    with pytest.raises(InputError, match="'ade20k' has no split 'trainaug'; it has train, val"):
        load_segmentation("ade20k", voc, "trainaug")
    with pytest.raises(InputError, match="no set of boxes 'voc'; did you mean .*there are voc07, voc12, coco20k"):
        load_boxes("voc", voc)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_fail_from_the_depths(voc: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for file in (voc / "JPEGImages" / "2007_000032.jpg", voc / "SegmentationClass" / "2007_000032.png"):
        content = bytearray(file.read_bytes())
        for place in random.integers(0, len(content), 12):
            content[place] = random.integers(0, 256)
        file.write_bytes(content)
    # Most of these are damaged beyond reading; some decode to other pixels, as nothing in the file can tell.
    with suppress(UnreadableItem):
        image, labels = voc_segmentation(voc, "train").load(1)
        assert labels.shape == (image.height, image.width)


def test_a_contact_sheet_shows_what_is_there(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict] = []

    def together(rows: list, **how: Any) -> Image.Image:
        told.append(how)
        return captioned_grid(rows, **how)

    monkeypatch.setattr("skipless.data.dense.preview.captioned_grid", together)
    damage(voc / "SegmentationClass" / "2008_000001.png", "empty")
    file = tmp_path / "sheet.png"
    problems = contact_sheet(file, voc_segmentation(voc, "train"), voc_boxes(voc), cell=96)
    assert len(problems) == 1
    assert "2008_000001.png" in problems[0]
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet)
    for colour in ((255, 0, 0), (255, 255, 0), tuple(colour_labels(np.array([[15]], dtype=np.uint8))[0, 0])):
        assert (pixels == colour).all(-1).any()  # a box, a difficult one, the mask of a person
    assert told[0]["titles"] == ("image and boxes", "mask")
    names = [name for how in told for name in how.get("names", ())]
    assert {"2007_000032: dog, person, cat", "2008_000001: unreadable"} <= set(names)
    person, last = (tuple(colour_labels(np.array([[label]], dtype=np.uint8))[0, 0].tolist()) for label in (15, 20))
    assert told[-1]["legend"] == [
        ("box", (255, 0, 0)), ("difficult box", (255, 255, 0)), ("background", (0, 0, 0)), ("person", person),
        ("tvmonitor", last), ("ignored", (255, 255, 255)),
    ]  # fmt: skip
    with pytest.raises(InputError, match="needs a set with masks or one with boxes"):
        contact_sheet(file)
    with pytest.raises(InputError, match="cannot write .*nowhere"):
        contact_sheet(tmp_path / "nowhere" / "sheet.png", boxes=voc_boxes(voc))


def test_colours_differ_between_labels() -> None:
    colours = colour_labels(np.arange(171, dtype=np.uint8)[None])[0]
    assert len({tuple(colour) for colour in colours}) == 171
