"""Shards: which tars are meant, where their members lie, what is refused, and that they train as folders do."""

import io
import os
import pickle
import tarfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.stored_images import jpeg, write_folder, write_tar

from skipless.data import ImageConfig, Order, load_images, train_batches
from skipless.data.loading.loader import BatchedDataset
from skipless.data.multicrop import MultiCropConfig, load_multicrop
from skipless.data.on_disk import StoredImages
from skipless.data.shards import ShardFiles, find_shards, index as indexing, index_shards, write_shards
from skipless.data.shards.find import expand_braces
from skipless.data.shards.tar import tar_members
from skipless.errors import InputError

try:
    import webdataset as wds
except ImportError:
    wds: Any = None

needs_webdataset = pytest.mark.skipif(wds is None, reason="webdataset is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SAMPLE = {"a.jpg": jpeg(), "a.cls": b"0"}


def one_shard(folder: Path, members: dict[str, bytes] | list[tuple[str, bytes]] | None = None) -> str:
    """A set of one training and one validation shard; the training one has the members."""
    write_tar(folder / "train-000000.tar", SAMPLE if members is None else members)
    write_tar(folder / "val-000000.tar", SAMPLE)
    return str(folder)


def indexed(named: str) -> tuple[ShardFiles, list[int]]:
    shards = find_shards(named)
    assert shards is not None
    source, labels = index_shards(shards.split("train"))
    return source, labels.tolist()


def index_val(folder: Path) -> ShardFiles:
    shards = find_shards(str(folder))
    assert shards is not None
    return index_shards(shards.split("val"))[0]


def first_batches(data: BatchedDataset, workers: int = 0, start: int = 0, count: int = 5) -> list:
    order = Order(len(data), batch_size=3, seed=1, start_step=start)
    return list(islice(train_batches(data, order, workers=workers), count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    write_shards(folder, tmp_path / "shards", images=3)
    return tmp_path / "shards"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("t-{8..11}.tar", ["t-8.tar", "t-9.tar", "t-10.tar", "t-11.tar"]),
        ("t-{2..0}", ["t-2", "t-1", "t-0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a-{0,1},b}.tar", ["a-0.tar", "a-1.tar", "b.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces_expand_as_in_a_shell(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("t-{000..123.tar", "a brace of 't-{000..123.tar' is not closed"),
        ("t-{000-123}.tar", "'{000-123}' of 't-{000-123}.tar' is neither a range"),
        ("{0..9999}{0..9999}", "names 100000000 shards; give at most 1000000"),
        ("{0..99999999}", "names 100000000 shards; give at most 1000000"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand_braces(pattern)


def test_splits_are_told_by_names_or_else_by_folders(tmp_path: Path) -> None:
    names = ["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar", "train/x-0.tar", "val/x-0.tar", "trainer.tar"]
    for name in names:
        write_tar(tmp_path / name, SAMPLE)
    found = find_shards(str(tmp_path))
    assert found is not None
    kept = {split: [str(f.relative_to(tmp_path)) for f in found.split(split).files] for split in ("train", "val")}
    assert kept == {"train": [names[0], names[2]], "val": [names[1], names[3]]}
    pattern = find_shards(f"{tmp_path}/{{imagenet1k-{{train-0000,validation-00}},val/x-0}}.tar")
    assert pattern is not None
    assert (len(pattern.split("train").files), len(pattern.split("val").files), pattern.root) == (1, 2, tmp_path)


def test_tars_beside_class_folders_are_left_alone(folder: Path) -> None:
    write_tar(folder / "ILSVRC2012_img_train.tar", {"n01440764.tar": b""})
    assert find_shards(str(folder)) is None
    assert len(load_images(ImageConfig(str(folder), image_size=16)).train) == 8


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_finds_them(tmp_path: Path, layout: int) -> None:
    names = ["a.jpg", "sub/b.jpg", f"{'long' * 20}/{'name' * 15}.jpg"]
    if layout != tarfile.USTAR_FORMAT:
        names += [f"{'very' * 60}/{'long' * 40}.png", "müll/ö.cls"]
    contents = {name: os.urandom(size) for name, size in zip(names, (0, 511, 512, 513, 9000), strict=False)}
    file = write_tar(tmp_path / "t.tar", contents, format=layout)
    with tarfile.open(file, "a") as tar:
        tar.add(tmp_path, "directory", recursive=False)
        last = tarfile.TarInfo("last.jpg")
        last.mtime, last.size = 1.5, 4  # pyright: ignore[reportAttributeAccessIssue] (webdataset's are fractions, too)
        tar.addfile(last, io.BytesIO(b"last"))
    found = list(tar_members(file))
    with tarfile.open(file) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar if member.isfile()]
    assert [tuple(member) for member in found] == expected
    raw = file.read_bytes()
    assert all(raw[m.offset : m.offset + m.size] == {**contents, "last.jpg": b"last"}[m.name] for m in found)


@pytest.mark.parametrize("keep", [100, 512, 700, 1024, 2000, 2048, -512, -1024, -10240 + 1024])
def test_a_shard_that_is_cut_off_is_named(tmp_path: Path, keep: int) -> None:
    named = one_shard(tmp_path, {"a.jpg": jpeg(), "a.cls": b"0"})
    file = tmp_path / "train-000000.tar"
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0")) + 511 & ~511  # behind the label's block
    cut = keep if keep > 0 else end
    os.truncate(file, cut)
    with pytest.raises(InputError, match=r"the shard '.*train-000000\.tar' is cut off: .*; fetch or write it again"):
        load_images(ImageConfig(named))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut off"),
        (b"<html>" * 200, "is no tar; fetch or write it again"),
        (b"\x1f\x8b" + bytes(600), r"is compressed, and images are read from any place of a shard: .*gzip -d"),
        (bytes(10240), "has no image: it holds nothing"),
    ],
    ids=["empty", "web page", "gzip", "no members"],
)
def test_a_file_that_is_no_shard_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    named = one_shard(tmp_path)
    (tmp_path / "train-000000.tar").write_bytes(content)
    with pytest.raises(InputError, match=rf"the shard '.*train-000000\.tar' {message}"):
        load_images(ImageConfig(named))


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    named = one_shard(tmp_path, {"a.jpg": jpeg(), "a.cls": b"0", "b.jpg": jpeg(), "b.cls": b"0"})
    file = tmp_path / "train-000000.tar"
    with tarfile.open(file) as tar:
        at = tar.getmember("b.jpg").offset
    raw = bytearray(file.read_bytes())
    raw[at + 3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(InputError, match=f"is damaged at byte {at}"):
        load_images(ImageConfig(named))


@pytest.mark.parametrize("damage", [b"\0" * 4, b"0 path", b"99999", b"9 pathx"])
def test_a_damaged_pax_record_is_named(tmp_path: Path, damage: bytes) -> None:
    """No checksum covers it."""
    file = tmp_path / "train-000000.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("é" * 120 + ".cls"), io.BytesIO(b""))
    raw = bytearray(file.read_bytes())
    raw[512 : 512 + len(damage)] = damage
    file.write_bytes(raw)
    with pytest.raises(InputError, match="is damaged at byte 0"):
        list(tar_members(file))


def test_images_named_as_notes_on_the_shard_are_not_lost(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder")
    for split in ("train", "val"):
        one = next((tmp_path / "folder" / split).rglob("*.jpg"))
        (one.parent / "__init__.jpg").write_bytes(one.read_bytes())
    written = write_shards(tmp_path / "folder", tmp_path / "shards")
    data = load_images(ImageConfig(str(tmp_path / "shards")))
    assert (len(data.train), len(data.val)) == (written.images["train"], written.images["val"])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (SAMPLE | {"b.jpg": jpeg()}, r"'.*train-000000\.tar/b\.jpg' and 0 more images have no label"),
        (SAMPLE | {"b.jpg": jpeg(), "b.json": b'{"size": 3}'}, "have no label"),
        (SAMPLE | {"b.cls": b"0"}, "'b' in the shard .* has no image, only cls"),
        ([*SAMPLE.items(), ("a.jpg", jpeg())], r"has 'a\.jpg' and 'a\.jpg' under one key"),
        (SAMPLE | {"a.png": jpeg()}, r"has 'a\.jpg' and 'a\.png' under one key"),
        ({"a.cls": b"0", "b.txt": b""}, r"has no image: it holds \.cls, \.txt"),
        ({"a.jpg": jpeg(), "a.cls": b"cat"}, r"the label b'cat' of 'a\.cls' .* is no whole number"),
        ({"a.jpg": jpeg(), "a.cls": b"-1"}, "is no whole number from 0 on"),
        ({"a.jpg": jpeg(), "a.json": b'{"label": true}'}, "is no whole number from 0 on"),
        ({"a.jpg": jpeg(), "a.json": b"{"}, "is no whole number from 0 on"),
        ({"a.jpg": jpeg(), "a.cls": b"7"}, "go up to 7, but there are only 1 training images"),
    ],
)
def test_samples_that_make_no_sense_are_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(ImageConfig(one_shard(tmp_path, members)))


def test_sets_without_their_shards_are_refused(tmp_path: Path) -> None:
    one_shard(tmp_path)
    with pytest.raises(InputError, match=r"names 3 shards and 2 are missing, '.*train-000001\.tar' first"):
        load_images(ImageConfig(f"{tmp_path}/train-{{000000..000002}}.tar"))
    with pytest.raises(InputError, match=r"no shard of '.*' says 'val' in its name or its folder's"):
        load_images(ImageConfig(f"{tmp_path}/train-000000.tar"))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train-000000.tar.gz").touch()
    with pytest.raises(InputError, match=r"'.*train-000000\.tar\.gz' is a compressed tar"):
        load_images(ImageConfig(str(tmp_path / "packed")))
    with pytest.raises(InputError, match="is compressed"):
        (tmp_path / "val.tar.gz").write_bytes(b"\x1f\x8b" + bytes(10))
        load_images(ImageConfig(f"{tmp_path}/{{train-000000.tar,val.tar.gz}}"))


def samples_of(tars: list[Path]) -> list[dict[str, Any]]:
    """What webdataset makes of the members; its own way of opening files leaves them open."""
    samples = []
    for tar in tars:
        with tar.open("rb") as stream:
            members = [{**member, "__url__": tar.name} for member in wds.tariterators.tar_file_iterator(stream)]
            samples += wds.tariterators.group_by_keys(members)
    return samples


@needs_webdataset
def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with wds.ShardWriter(str(tmp_path / "train" / "shard-%06d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(5):
            writer.write({"__key__": f"n0{number % 2}/{number}", "jpg": jpeg(50 * number), "cls": number % 3})
    with wds.TarWriter(str(tmp_path / "val" / "shard-000000.tar")) as writer:
        writer.write({"__key__": "0", "webp": jpeg(), "json": {"label": 2, "class_id": "n02"}})
    data = load_images(ImageConfig(str(tmp_path), image_size=8, augmentation="none"))
    assert isinstance(data.train, StoredImages)
    assert isinstance(data.train.source, ShardFiles)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1]
    assert (data.val.labels.tolist(), data.classes) == ([2], ("0", "1", "2"))
    theirs = [sample["jpg"] for sample in samples_of(sorted((tmp_path / "train").glob("*.tar")))]
    assert [data.train.source.content(i) for i in range(5)] == theirs
    levels = [image[0].mean().item() * 0.229 + 0.485 for image, _ in (data.train[i] for i in range(5))]
    np.testing.assert_allclose(levels, np.arange(5) * 50 / 255, atol=0.01)


@needs_webdataset
def test_what_is_written_webdataset_reads(folder: Path, shards: Path) -> None:
    samples = samples_of(sorted(shards.glob("train-*.tar")))
    assert [(sample["__key__"], sample["jpg"], sample["cls"]) for sample in samples] == [
        (f"{name}/{i}", (folder / "train" / name / f"{i}.jpg").read_bytes(), b"%d" % label)
        for label, name in enumerate(("cat", "dog"))
        for i in range(4)
    ]
    assert (shards / "classes.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize("holdout", [0, 3])
def test_shards_and_folders_give_the_same_batches(folder: Path, shards: Path, holdout: int) -> None:
    sets = [load_images(ImageConfig(str(at), image_size=16, holdout=holdout)) for at in (folder, shards)]
    assert sets[0].classes == sets[1].classes
    for one, other in zip(*(first_batches(data.train) for data in sets), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert all(torch.equal(sets[0].val[i][0], sets[1].val[i][0]) for i in range(len(sets[0].val)))
    crops = [
        load_multicrop(at, MultiCropConfig(global_size=16, local_size=8, local_crops=1)) for at in (folder, shards)
    ]
    for (one,), (other,) in zip(*map(first_batches, crops), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_of_shards_depend_neither_on_workers_nor_on_the_start(shards: Path) -> None:
    data = load_images(ImageConfig(str(shards), image_size=16)).train
    data[0]  # the tars are open when the workers are forked
    alone, helped, resumed = first_batches(data), first_batches(data, workers=2), first_batches(data, start=3, count=2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone, helped, strict=True))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone[3:], resumed, strict=True))


def test_a_source_can_be_sent_to_a_spawned_worker(shards: Path) -> None:
    source, _ = indexed(str(shards))
    content = source.content(0)
    assert pickle.loads(pickle.dumps(source)).content(0) == content


def test_few_tars_are_open_at_a_time(shards: Path) -> None:
    source, _ = indexed(str(shards))
    source.handles.most = 2
    before = len(os.listdir("/proc/self/fd"))
    contents = [source.content(i) for i in range(8)]
    assert len(os.listdir("/proc/self/fd")) - before <= 2
    assert [source.content(i) for i in range(8)] == contents


def test_the_index_is_read_again_until_a_shard_changes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = indexed(str(shards))
    scans = []
    monkeypatch.setattr(indexing, "tar_members", lambda tar: scans.append(tar) or tar_members(tar))
    again = indexed(str(shards))
    assert scans == []
    assert again[1] == first[1]
    assert [again[0].content(i) for i in range(8)] == [first[0].content(i) for i in range(8)]
    write_tar(shards / "train-000000.tar", {"z.jpg": jpeg(9), "z.cls": b"1"})
    os.utime(shards / "train-000000.tar", ns=(0, time.time_ns() + 10**9))
    assert indexed(str(shards))[1] == [1, *first[1][3:]]
    assert len(scans) == 3


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"junk" * 100])
def test_a_damaged_index_is_made_again(shards: Path, damage: bytes) -> None:
    first = indexed(str(shards))
    (file,) = shards.glob(".skipless-*.npz")
    file.write_bytes(damage)
    assert indexed(str(shards))[1] == first[1]
    assert file.stat().st_size > 1000


def test_where_nothing_can_be_written_the_index_lies_in_the_cache(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shards and allowed(path, mode))
    indexed(str(shards))
    assert not list(shards.glob(".skipless-*"))
    (file,) = (tmp_path / "cache" / "skipless" / "shards").glob("*.npz")
    scans = []
    monkeypatch.setattr(indexing, "tar_members", lambda tar: scans.append(tar) or tar_members(tar))
    indexed(str(shards))
    assert (scans, file.exists()) == ([], True)


def test_a_shard_that_shrinks_or_goes_while_in_use_is_named(shards: Path) -> None:
    source, _ = indexed(str(shards))
    os.truncate(shards / "train-000002.tar", 1000)
    with pytest.raises(InputError, match=r"train-000002\.tar/dog/2\.jpg' is no readable image \(.* bytes are there\)"):
        source.read(6)
    (shards / "train-000001.tar").unlink()
    with pytest.raises(InputError, match=r"cannot read the shard '.*train-000001\.tar'"):
        source.read(3)


def test_written_keys_end_at_the_first_dot_and_differ(folder: Path, tmp_path: Path) -> None:
    cats = folder / "train" / "cat"
    (cats / "a.b.jpg").write_bytes(jpeg(1))
    (cats / "a_b.JPEG").write_bytes(jpeg(2))
    (cats / "0.png").write_bytes(jpeg(3))  # sorted behind 0.jpg
    write_shards(folder, tmp_path / "out")
    source, labels = indexed(str(tmp_path / "out"))
    assert [bytes(name).decode() for name in source.files] == [
        "cat/0.jpg", "cat/0-2.png", "cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "cat/a_b.jpg", "cat/a_b-2.jpeg",
        "dog/0.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.jpg",
    ]  # fmt: skip
    assert labels == [0] * 7 + [1] * 4


def test_training_images_are_shuffled_if_asked_and_keep_their_labels(folder: Path, tmp_path: Path) -> None:
    write_shards(folder, tmp_path / "out", shuffle_seed=3)
    source, labels = indexed(str(tmp_path / "out"))
    assert labels != sorted(labels)
    assert [bytes(name)[:3].decode() for name in source.files] == [("cat", "dog")[label] for label in labels]
    assert [bytes(name).decode() for name in index_val(tmp_path / "out").files] == [
        f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(4)
    ]


def test_shards_are_not_written_over_others_nor_from_nothing(folder: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds shards already"):
        write_shards(folder, shards)
    with pytest.raises(InputError, match=r"no folder '.*nothing/train'"):
        write_shards(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(InputError, match="0 images a shard"):
        write_shards(folder, tmp_path / "out", images=0)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write shards"):
        write_shards(folder, tmp_path / "file" / "out")
