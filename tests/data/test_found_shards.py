"""Shards as people make them: lists of classes, names of all kinds, copies by other systems, labels beyond numbers."""

import os
from itertools import islice
from pathlib import Path

import pytest
import torch
from data.stored_images import jpeg, write_folder, write_tar

from skipless.data import ImageConfig, Order, load_images, train_batches
from skipless.data.multicrop import load_multicrop
from skipless.data.shards import find_shards, index_shards, write_shards
from skipless.data.shards.shard_files import ShardFiles
from skipless.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    write_shards(folder, tmp_path / "shards", images=3)
    return tmp_path / "shards"


def one_shard(folder: Path, members: dict[str, bytes]) -> str:
    """A set of one training shard."""
    write_tar(folder / "train-000000.tar", members)
    return str(folder)


def indexed(named: str) -> tuple[ShardFiles, list[int]]:
    shards = find_shards(named)
    assert shards is not None
    source, labels = index_shards(shards.split("train"))
    return source, labels.tolist()


CLASSES = ("cat", "dog")


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog",
        b"cat\ndog\n",
        b"cat\r\ndog",
        b"cat\rdog\r",
        b"cat\ndog\n\n\n",
        b"\xef\xbb\xbfcat\ndog",
        "cat\r\ndog\r\n".encode("utf-16"),
        "cat\ndog".encode("utf-32"),
    ],
)
def test_a_list_of_classes_may_end_and_begin_in_any_way(shards: Path, content: bytes) -> None:
    (shards / "classes.txt").write_bytes(content)
    assert load_images(ImageConfig(str(shards))).classes == CLASSES


def test_class_names_are_numbers_only_where_there_is_no_list(shards: Path) -> None:
    (shards / "classes.txt").write_text("cat\ndog\nwolf")  # a class without images
    assert load_images(ImageConfig(str(shards))).classes == (*CLASSES, "wolf")
    (shards / "classes.txt").unlink()
    assert load_images(ImageConfig(str(shards))).classes == ("0", "1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\n", "names 1 classes, and the labels go up to 1"),
        (b"", "names 0 classes"),
        (b"cat\ncat\n", "names the class 'cat' twice"),
        (b"cat\n\ndog\n", r"line 2 of '.*classes\.txt' is blank"),
        (b"\xff\xfec", "cannot read the classes in"),
    ],
)
def test_a_list_of_classes_that_does_not_fit_is_refused(shards: Path, content: bytes, message: str) -> None:
    (shards / "classes.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"{message}.*; give one line for each class, or remove the file"):
        load_images(ImageConfig(str(shards)))


LATIN = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8


def test_names_that_are_no_utf8_keep_their_bytes(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (folder / split / "cat").rename(folder / split / LATIN)
        (folder / split / "dog" / "0.jpg").rename(folder / split / "dog" / f"{LATIN}.jpg")
    write_shards(folder, tmp_path / "out")
    sets = [load_images(ImageConfig(str(at), image_size=16)) for at in (folder, tmp_path / "out")]
    assert sets[0].classes == sets[1].classes == (LATIN, "dog")
    order = Order(8, batch_size=4, seed=0)
    for one, other in zip(*(islice(train_batches(data.train, order), 2) for data in sets), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("name", ["ca\nt", "ca\rt", " "])
def test_classes_that_are_no_line_are_refused_before_the_work(folder: Path, tmp_path: Path, name: str) -> None:
    for split in ("train", "val"):
        (folder / split / "cat").rename(folder / split / name)
    with pytest.raises(InputError, match=r"the class .* is blank or has a line break in its name; rename its folder"):
        write_shards(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["{raw}", "{0..1}", "{a,b}", "in{ner}/deep{0..3}", "a}{b"])
def test_what_exists_is_no_pattern(folder: Path, shards: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    images = folder.rename(tmp_path / name / "images")
    tars = shards.rename(tmp_path / name / "shards")
    assert load_images(ImageConfig(str(images), image_size=16)).classes == CLASSES
    assert len(load_multicrop(images)) == 8
    for named in (tars, f"{tars}/{{train-{{000000..000002}},val-000000}}.tar"):
        assert len(load_images(ImageConfig(str(named), image_size=16)).train) == 8
    (tar,) = (tars / name for name in ("train-000000.tar",))
    odd = tar.rename(tar.with_name("train-{x}.tar"))
    found = find_shards(str(odd))
    assert found is not None
    assert found.files == (odd,)
    with pytest.raises(InputError, match="nor is there such a folder"):
        find_shards(f"{tars}/{{nothing}}")


def test_a_pattern_may_be_longer_than_a_name_can_be(tmp_path: Path) -> None:
    names = [f"train-with-a-rather-long-name-{number:06}" for number in range(20)]
    for name in names:
        write_tar(tmp_path / f"{name}.tar", {"a.jpg": jpeg(), "a.cls": b"0"})
    found = find_shards(f"{tmp_path}/{{{','.join(names)}}}.tar")
    assert found is not None
    assert [file.stem for file in found.files] == names


def test_copies_and_hidden_folders_are_no_shards_nor_samples(shards: Path) -> None:
    first = indexed(str(shards))
    (shards / "._train-000000.tar").write_bytes(b"\0\5\x16\7")
    (shards / "._old.tar.gz").write_bytes(b"\0\5\x16\7")
    (shards / "train-000002.tar").rename(shards / "train-000002.TAR")
    assert indexed(str(shards))[1] == first[1]
    copies = [("./b/.ipynb_checkpoints/a.jpg", jpeg()), ("./b/._a.jpg", b""), (".hidden/x.jpg", jpeg())]
    write_tar(shards / "train-000000.tar", [("./b/a.jpg", jpeg()), ("./b/a.cls", b"0"), *copies])
    source, labels = indexed(str(shards))
    assert bytes(source.files[0]) == b"./b/a.jpg"
    assert labels == [0, *first[1][3:]]


@pytest.mark.parametrize("label", [b"\xef\xbb\xbf1", "1".encode("utf-16"), b" 1\r\n"])
def test_labels_may_have_a_mark(tmp_path: Path, label: bytes) -> None:
    assert indexed(one_shard(tmp_path, {"a.jpg": jpeg(), "a.cls": label}))[1] == [1]


@pytest.mark.parametrize("label", [b"1e400", b"Infinity", b"-Infinity", b"NaN", b"1" + b"0" * 30, b"9" * 5000, b"1.0"])
@pytest.mark.parametrize("kind", ["cls", "json"])
def test_labels_beyond_all_numbers_are_refused(tmp_path: Path, label: bytes, kind: str) -> None:
    content = label if kind == "cls" else b'{"label": %s}' % label
    with pytest.raises(InputError, match="is no whole number from 0 on"):
        indexed(one_shard(tmp_path, {"a.jpg": jpeg(), f"a.{kind}": content}))
