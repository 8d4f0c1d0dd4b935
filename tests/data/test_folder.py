"""Which files of a folder are images, and how they become 8 bits a channel."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipless.data.folder import UnreadableImage, decode_image, image_files, read_image, scan_split, to_mode
from skipless.data.multicrop import load_multicrop
from skipless.errors import InputError

RAMP = np.linspace(0, 65535, 256).reshape(16, 16)


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name, "PNG")
    return root


def listed(root: Path) -> list[str]:
    return sorted(map(os.fsdecode, image_files(root)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint16)).save(out, kind)
    image = decode_image(out, "x")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.arange(256).reshape(16, 16, 1).repeat(3, 2))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_every_mode_of_sixteen_bits_is_scaled(mode: str) -> None:
    wide, order = ("i4", "<") if mode == "I" else ("u2", ">" if mode == "I;16B" else "<")
    image = Image.frombytes(mode, (16, 16), RAMP.astype(order + wide).tobytes())
    assert np.array_equal(np.asarray(to_mode(image, "L", "x")).ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (RAMP.astype(np.float32), "in mode F, floats"),
        (2 * RAMP.astype(np.int32), "in mode I, more than 16 bits"),
        (RAMP.astype(np.int32) - 1, "in mode I, more than 16 bits"),
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path: Path, values: np.ndarray, words: str) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=rf"^'.*/x\.tif' is no .*\({words}, nothing says .* scale to") as caught:
        read_image(tmp_path / "x.tif")
    assert caught.value.name == str(tmp_path / "x.tif")


def test_hidden_files_and_folders_are_neither_images_nor_classes(tmp_path: Path) -> None:
    kept = ("cat/a.png", "cat/deep/b.PNG", "dog/c.jpg")
    write(tmp_path / ".data", *kept, "cat/._a.png", "cat/.ipynb_checkpoints/a.png", ".ipynb_checkpoints/x.png")
    assert listed(tmp_path / ".data") == sorted(kept)  # only what lies below is to have no dot
    classes, files, labels = scan_split(tmp_path / ".data")
    assert classes == ("cat", "dog")
    assert [os.fsdecode(file) for file in files] == list(kept)
    assert labels.tolist() == [0, 0, 1]
    assert len(load_multicrop(tmp_path / ".data")) == 3


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/deep/x.png", "data/train/a/1.png", "data/train/b/2.png", "data/val/a/3.png")
    train = tmp_path / "data" / "train"
    (train / "a" / "file.png").symlink_to(train / "b" / "2.png")
    (train / "a" / "folder").symlink_to(tmp_path / "elsewhere")
    (train / "b" / "folder").symlink_to(tmp_path / "elsewhere")  # reached twice, and no circle
    (train / "b" / "a").symlink_to(train / "a")
    (train / "c").symlink_to(tmp_path / "elsewhere" / "deep")
    found = listed(train)
    assert found == [
        *("a/1.png", "a/file.png", "a/folder/deep/x.png"),
        *("b/2.png", "b/a/1.png", "b/a/file.png", "b/a/folder/deep/x.png", "b/folder/deep/x.png", "c/x.png"),
    ]
    for place, target in (("a", train / "a"), ("a", train), ("a", train.parent), ("b", tmp_path)):
        (train / place / f"loop{len(list(train.rglob('loop*')))}").symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert listed(train) == found
    assert [os.fsdecode(file) for file in scan_split(train)[1]] == found
    assert len(load_multicrop(train)) == len(found)
    (tmp_path / "link").symlink_to(train)
    assert listed(tmp_path / "link") == found


def test_a_class_that_is_a_circle_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    (tmp_path / "self").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"no image in '.*/self' .*; fill or remove it"):
        scan_split(tmp_path)
