"""Which files a layout's reader takes, and which image a line of a list means."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.pictures import jpeg, png

from skipless.data.dense import (
    SegmentationData,
    ade20k_full_segmentation,
    ade20k_segmentation,
    coco_boxes,
    coco_stuff_segmentation,
    contact_sheet,
    voc_boxes,
    voc_segmentation,
)
from skipless.errors import InputError
from skipless.studies.feature_pictures import find_pictures

IDS = np.zeros((8, 12))
LATIN = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8
MARKED: list[Callable[[str], bytes]] = [
    lambda text: text.encode("utf-8-sig"),
    lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    lambda text: text.encode("utf-32"),
    lambda text: text.removesuffix("\n").encode(),
]


def ade(root: Path, image: str, mask: str) -> SegmentationData:
    jpeg(root / "images" / "training" / "a.jpg")
    (root / "images" / "training" / "a.jpg").rename(root / "images" / "training" / image)
    png(root / "annotations" / "training" / "x.png", IDS)
    (root / "annotations" / "training" / "x.png").rename(root / "annotations" / "training" / mask)
    return ade20k_segmentation(root)


def ade_full(root: Path, image: str, mask: str) -> SegmentationData:
    folder = root / "images" / "training" / "street"
    jpeg(folder / "a.jpg")
    (folder / "a.jpg").rename(folder / image)
    Image.new("RGB", (12, 8)).save(folder / "x.png")
    (folder / "x.png").rename(folder / Path(mask).with_stem(f"{Path(mask).stem}_seg"))
    return ade20k_full_segmentation(root)


def stuff(root: Path, image: str, mask: str) -> SegmentationData:
    jpeg(root / "train2017" / "a.jpg")
    (root / "train2017" / "a.jpg").rename(root / "train2017" / image)
    png(root / "annotations" / "train2017" / "x.png", IDS)
    (root / "annotations" / "train2017" / "x.png").rename(root / "annotations" / "train2017" / mask)
    return coco_stuff_segmentation(root)


def voc(root: Path, image: str, mask: str, listing: bytes | None = None) -> SegmentationData:
    jpeg(root / "JPEGImages" / "a.jpg")
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / image)
    png(root / "SegmentationClass" / "x.png", IDS)
    (root / "SegmentationClass" / "x.png").rename(root / "SegmentationClass" / mask)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    listing = f"{Path(image).stem}\n".encode() if listing is None else listing
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(listing)
    return voc_segmentation(root)


@pytest.mark.parametrize("layout", [ade, ade_full, stuff, voc])
@pytest.mark.parametrize(
    ("image", "mask"),
    [("y.JPG", "y.png"), ("y.jpeg", "y.PNG"), ("y.webp", "y.png"), ("img.001.Jpg", "img.001.png"), ("y.png", "y.png")],
)
def test_every_layout_takes_what_counts_as_an_image(
    tmp_path: Path, layout: Callable[[Path, str, str], SegmentationData], image: str, mask: str
) -> None:
    data = layout(tmp_path, image, mask)
    assert [(item.id, item.image.name) for item in data.items] == [(Path(image).stem, image)]
    assert data.load(0)[1].shape == (8, 12)


@pytest.mark.parametrize("layout", [ade, ade_full, stuff])
def test_no_layout_counts_copies_by_other_systems(
    tmp_path: Path, layout: Callable[[Path, str, str], SegmentationData]
) -> None:
    folder = layout(tmp_path, "y.jpg", "y.png").items[0].image.parent
    for name in ("._y.jpg", ".hidden.jpg", "._z.PNG", "Thumbs.db", "z.jpg.part"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder.parent / ".ipynb_checkpoints").mkdir()
    jpeg(folder.parent / ".ipynb_checkpoints" / "y.jpg")
    assert [item.id for item in layout(tmp_path, "y.jpg", "y.png").items] == ["y"]


def test_a_copy_of_a_mask_does_not_tell_which_numbering_it_has(tmp_path: Path) -> None:
    stuff(tmp_path, "y.jpg", "y.png")
    (tmp_path / "annotations" / "train2017" / "._y_labelTrainIds.png").touch()
    assert coco_stuff_segmentation(tmp_path).load_mask(0).shape == (8, 12)
    png(tmp_path / "annotations" / "train2017" / "y_labelTrainIds.png", IDS + 170)
    assert (coco_stuff_segmentation(tmp_path).load_mask(0) == 170).all()


@pytest.mark.parametrize("layout", [ade, ade_full, stuff])
@pytest.mark.parametrize("other", ["y.JPG", "y.webp", "y.png"])
def test_two_images_of_one_mask_are_refused(
    tmp_path: Path, layout: Callable[[Path, str, str], SegmentationData], other: str
) -> None:
    folder = layout(tmp_path, "y.jpg", "y.png").items[0].image.parent
    jpeg(folder / "a.jpg")
    (folder / "a.jpg").rename(folder / other)
    with pytest.raises(InputError, match=r"would have the same mask; remove one of them"):
        layout(tmp_path, "y.jpg", "y.png")


def test_equal_names_in_two_folders_of_the_full_ade20k_are_told_apart(tmp_path: Path) -> None:
    for place in ("beach", "street"):
        folder = tmp_path / "images" / "training" / place
        jpeg(folder / "x.jpg")
        Image.new("RGB", (12, 8)).save(folder / "x_seg.png")
    jpeg(folder / "y.jpg")
    Image.new("RGB", (12, 8)).save(folder / "y_seg.png")
    data = ade20k_full_segmentation(tmp_path)
    assert [item.id for item in data.items] == ["beach/x.jpg", "street/x.jpg", "y"]
    assert [item.mask.parent.name for item in data.items] == ["beach", "street", "street"]


def voc_of(root: Path, listing: bytes, *images: str) -> list[tuple[str, str]]:
    """Ids, and images below their folder, of a list."""
    for image in images:
        jpeg(root / "JPEGImages" / image)
    (root / "SegmentationClass").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(listing)
    items = voc_segmentation(root).items
    assert all(item.mask == root / "SegmentationClass" / f"{item.id}.png" for item in items)
    return [(item.id, str(item.image.relative_to(root / "JPEGImages"))) for item in items]


DOTTED = [("img.001", "img.001.jpg"), ("img.002", "img.002.jpg")]


@pytest.mark.parametrize(
    "listing",
    [
        "img.001\nimg.002\n",
        "img.001.jpg\nimg.002.JPG\n",
        "img.001  1\nimg.002 -1\n",
        "/JPEGImages/img.001.jpg /SegmentationClassAug/img.001.png\nJPEGImages/img.002.jpg masks/img.002.png\n",
        "VOC2012/JPEGImages/img.001.jpg\n/elsewhere/images/img.002.jpg\n",
        f"{'long' * 100}/img.001.jpg\n../images/img.002.jpg\n",
    ],
)
def test_dots_belong_to_a_name(tmp_path: Path, listing: str) -> None:
    assert voc_of(tmp_path, listing.encode(), "img.001.jpg", "img.002.jpg") == DOTTED


@pytest.mark.parametrize("encoded", MARKED)
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, encoded: Callable[[str], bytes]) -> None:
    assert voc_of(tmp_path, encoded("img.001\nimg.002\n"), "img.001.jpg", "img.002.jpg") == DOTTED
    (tmp_path / "list.txt").write_bytes(encoded("a.b\nc\n"))
    stuff(tmp_path, "a.b.jpg", "a.b.png")
    data = coco_stuff_segmentation(tmp_path, listing=tmp_path / "list.txt")
    assert [item.id for item in data.items] == ["a.b", "c"]
    coco(tmp_path, {1: "a.b.jpg", 2: "c.jpg"})
    assert [item.id for item in coco_boxes(tmp_path, listing=tmp_path / "list.txt").items] == ["a.b", "c"]
    ade(tmp_path, "y.jpg", "y.png")
    (tmp_path / "objectInfo150.txt").write_bytes(encoded("1\tName\n1\tbed \n2\tcar, auto\n"))
    assert ade20k_segmentation(tmp_path).classes == ("bed", "car")


def test_names_may_have_blanks_and_folders(tmp_path: Path) -> None:
    names = ["my dog.jpg", "my.jpg", "a/x.jpg", "b/x.jpg"]
    listing = b"my dog\nmy\na/x\nJPEGImages/b/x.jpg\n"
    assert voc_of(tmp_path, listing, *names) == [(name[:-4], name) for name in names]


@pytest.mark.parametrize("listing", ["x\ny\nx\n", "x\nx.jpg\n", "one/x\ntwo/x\n", "x 1\nx -1\n"])
def test_an_image_that_is_named_twice_is_refused(tmp_path: Path, listing: str) -> None:
    with pytest.raises(InputError, match=r"the list '.*train\.txt' names image 'x' twice; remove a line"):
        voc_of(tmp_path, listing.encode(), "x.jpg", "y.jpg")


def test_the_layouts_own_extension_goes_first(tmp_path: Path) -> None:
    assert voc_of(tmp_path, b"x\ny.webp\n", "x.jpg", "x.png", "y.jpg", "y.webp") == [("x", "x.jpg"), ("y", "y.webp")]
    with pytest.raises(InputError, match=r"'z' may be 'z\.bmp' or 'z\.webp' in '.*JPEGImages'; remove or rename one"):
        voc_of(tmp_path, b"z\n", "z.webp", "z.bmp")


@pytest.mark.parametrize("listing", [b"x\0y\n", "x\n".encode("utf-16-le"), b"caf\xe9\n", b"\xef\xbb\xbf\n \n"])
def test_lists_that_are_no_text_are_refused(tmp_path: Path, listing: bytes) -> None:
    with pytest.raises(InputError, match=r"the list '.*train\.txt' ?(is no text|is empty|\().*; there are train"):
        voc_of(tmp_path, listing, "x.jpg")


def coco(root: Path, images: dict[int, str]) -> None:
    """COCO files whose image number n has one box, n pixels wide."""
    for name in images.values():
        jpeg(root / "train2014" / name)
    (root / "annotations").mkdir(exist_ok=True)
    content = {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "annotations": [
            {"image_id": number, "iscrowd": 0, "bbox": [0, 0, number, 1], "category_id": 1} for number in images
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("a/x.jpg", "b/x.jpg", "y.jpg"), ["a/x.jpg", "b/x.jpg", "y"]),
        (("x.jpg", "x.png", "y.jpg"), ["x.jpg", "x.png", "y"]),
        (("x.jpg", "x.JPG", "x.jpeg"), ["x.jpg", "x.JPG", "x.jpeg"]),
        (("x.jpg", "x.png", "x.jpg.png"), ["x.jpg", "x.png", "x.jpg.png"]),  # a stem that is another's name
        (("img.001.jpg", "img.002.jpg", "img.jpg"), ["img.001", "img.002", "img"]),
    ],
)
def test_images_of_one_name_have_their_own_boxes(tmp_path: Path, names: tuple[str, ...], ids: list[str]) -> None:
    coco(tmp_path, dict(enumerate(names, 1)))
    data = coco_boxes(tmp_path, count=0)
    assert [item.id for item in data.items] == ids
    assert [str(item.image.relative_to(tmp_path / "train2014")) for item in data.items] == list(names)
    assert [data.load_objects(index).boxes.tolist() for index in range(3)] == [[[0, 0, n, 1]] for n in (1, 2, 3)]
    (tmp_path / "list.txt").write_text(f"{names[2]}\ntrain2014/{names[0]}\n")
    listed = coco_boxes(tmp_path, listing=tmp_path / "list.txt")
    assert [listed.load_objects(index).boxes[0, 2] for index in range(2)] == [3, 1]


@pytest.mark.parametrize(
    ("images", "line", "message"),
    [
        ({1: "7.jpg", 7: "1.jpg"}, "7", r"'7' in '.*' may mean the images \[1, 7\]"),
        ({1: "a/x.jpg", 2: "b/x.jpg"}, "x.jpg", r"'x.jpg' in '.*' may mean the images \[1, 2\]"),
        ({1: "a/x.jpg"}, "b/x.jpg", "names no COCO image: 'b/x.jpg'"),
        ({25: "dog.jpg"}, "COCO_000025.jpg", "names image 25, which"),  # a number that is no part of this image's name
        ({1: "x_1.jpg"}, "1\nx_1", "names image 1 twice"),
        ({1: "x.jpg"}, "x.jpg\nphotos/x.jpg", "names image 1 twice"),
    ],
)
def test_a_line_means_one_image_or_is_refused(tmp_path: Path, images: dict[int, str], line: str, message: str) -> None:
    coco(tmp_path, images)
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=message):
        coco_boxes(tmp_path, listing=tmp_path / "list.txt")


def test_a_file_name_goes_before_a_number_in_it(tmp_path: Path) -> None:
    coco(tmp_path, {1: "7.jpg", 7: "1.jpg", 3: "COCO_train2014_000000000003.jpg", 4: "d/000000000004.jpg"})
    (tmp_path / "list.txt").write_text("7.jpg\n1.jpg\n3\nval2017/000000000004.jpg\n")
    data = coco_boxes(tmp_path, listing=tmp_path / "list.txt")
    assert [item.image.name[-5] for item in data.items] == ["7", "1", "3", "4"]
    assert [data.load_objects(index).boxes[0, 2] for index in range(4)] == [1, 7, 3, 4]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([(1, "x.jpg"), (1, "y.jpg")], "lists two images 1, 'x.jpg' and 'y.jpg'"),
        ([(1, "x.jpg"), (2, "x.jpg")], "lists 'x.jpg' twice, as images 1 and 2"),
        ([(1, "x.jpg"), ("1", "y.jpg")], "is no COCO instances file .TypeError"),
        ([([1], "x.jpg")], "is no COCO instances file .TypeError"),
    ],
)
def test_ids_and_names_are_unique(tmp_path: Path, images: list, message: str) -> None:
    coco(tmp_path, {})
    file = tmp_path / "annotations" / "instances_train2014.json"
    (tmp_path / "train2014").mkdir()
    content = json.loads(file.read_text())
    content["images"] = [{"id": number, "file_name": name} for number, name in images]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        coco_boxes(tmp_path, count=0)


def test_names_that_are_no_utf8_can_be_sampled_and_drawn(tmp_path: Path) -> None:
    for name in (LATIN, "y"):
        data = ade(tmp_path, f"{name}.jpg", f"{name}.png")
    assert len(data.sample(1).items) == 1
    assert contact_sheet(tmp_path / "sheet.png", data) == ()
    assert {item.id for item in data.items} == {LATIN, "y"}


def test_pictures_are_all_photos_there_are(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.webp", "d.png", "._e.jpg"):
        jpeg(tmp_path / "x.jpg")
        (tmp_path / "x.jpg").rename(tmp_path / name)
    assert [name for name, _ in find_pictures(tmp_path)] == ["a", "b", "c"]  # PNGs beside photos are masks


def test_annotations_are_found_as_images_are(tmp_path: Path) -> None:
    voc(tmp_path, "img.001.JPG", "img.001.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "img.001.XML").write_text("<annotation></annotation>")
    (tmp_path / "ImageSets" / "Main").mkdir()
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("img.001\n")
    image, objects = voc_boxes(tmp_path).load(0)
    assert (image.size, len(objects)) == ((12, 8), 0)
