"""Unreadable images: replaced in training by a rule, counted and named once; an error in evaluation."""

import io
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from data.stored_images import jpeg, write_folder
from hypothesis import given, settings, strategies as st
from PIL import Image

from skipless.data import EvalLoader, ImageConfig, Order, load_images, train_batches
from skipless.data.folder import UnreadableImage, decode_image
from skipless.data.loading.corrupt import CorruptLog, Unreadable, read_corrupt
from skipless.data.loading.loader import BatchedDataset
from skipless.data.multicrop import MultiCropConfig, load_multicrop
from skipless.data.on_disk import StoredImages
from skipless.data.shards import write_shards
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

BAD = ("cat/1.jpg", "dog/3.jpg")
STEPS = 8  # two epochs


@pytest.fixture(params=["folder", "shards"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> ImageConfig:
    """Twelve training images, two of them damaged; a limit of three."""
    folder = write_folder(tmp_path / "images", each=6)
    for name in BAD:
        file = folder / "train" / name
        file.write_bytes(file.read_bytes()[:200])
    if request.param == "shards":
        write_shards(folder, folder := tmp_path / "shards", images=5)
    return ImageConfig(str(folder), image_size=16, corrupt_limit=0.25)


def batches(dataset: BatchedDataset, workers: int = 0, start: int = 0, count: int = STEPS, **log: object) -> list:
    order = Order(len(dataset), batch_size=3, seed=0, start_step=start)
    return list(islice(train_batches(dataset, order, workers=workers, **log), count))  # pyright: ignore[reportArgumentType]


def test_another_image_takes_the_place_with_its_own_label(data: ImageConfig, tmp_path: Path) -> None:
    train = load_images(replace(data, augmentation="none")).train
    assert isinstance(train, StoredImages)
    readable = {i: train[i][0] for i in range(12) if i not in (1, 9)}
    lines: list[str] = []
    log = tmp_path / "corrupt.txt"
    for images, labels in batches(train, corrupt_log=log, on_corrupt=lines.append):
        for image, label in zip(images, labels, strict=True):
            (index,) = (i for i, other in readable.items() if torch.equal(image, other))
            assert label == train.labels[index]
    assert len(lines) == 2  # over two epochs
    assert all("replaced by another" in line and "3 allowed" in line for line in lines)
    assert "2 so far" in lines[1]
    found = read_corrupt(log)
    assert sorted(name[-9:] for name in found) == list(BAD)
    assert all(found.values())


def test_replacements_depend_neither_on_workers_nor_on_the_start(data: ImageConfig) -> None:
    train = load_images(data).train
    alone, helped, resumed = batches(train), batches(train, workers=2), batches(train, start=3, count=STEPS - 3)
    assert all(torch.equal(a, b) and torch.equal(m, n) for (a, m), (b, n) in zip(alone, helped, strict=True))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone[3:], resumed, strict=True))


def test_replacements_differ_between_epochs_and_from_their_own_augmentation(data: ImageConfig) -> None:
    train = load_images(data).train
    assert isinstance(train, StoredImages)
    first, second = ({}, {})
    for epoch, seen in enumerate((first, second)):
        order = Order(12, batch_size=12, seed=5, start_step=epoch)
        (key,) = islice(iter(order), 1)
        (images, _), found = train.fetch(key)
        assert {item.name[-9:] for item in found} == set(BAD)
        seen.update(zip(key.indices.tolist(), images, strict=True))
        assert all(not torch.equal(seen[i], seen[j]) for i in seen for j in seen if i < j)
    assert not torch.equal(first[1], second[1])


def test_multi_crop_replaces_alike(data: ImageConfig) -> None:
    config = MultiCropConfig(global_size=16, local_size=8, local_crops=1)
    crops, lines = load_multicrop(data.data, config, corrupt_limit=0.25), []
    alone = batches(crops, on_corrupt=lines.append)
    assert len(lines) == 2
    for (one,), (other,) in zip(alone, batches(crops, workers=2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(InputError, match="is no readable image"):
        batches(load_multicrop(data.data, config))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_stop_the_run_and_are_named(data: ImageConfig, tmp_path: Path, workers: int) -> None:
    train = load_images(replace(data, corrupt_limit=0.1)).train
    log = tmp_path / "corrupt.txt"
    with pytest.raises(InputError) as caught:
        batches(train, workers=workers, corrupt_log=log)
    message = str(caught.value)
    assert "2 of 12 training images are unreadable, more than the 1 that corrupt_limit allows" in message
    assert all(name in message for name in BAD)
    assert str(log) in message
    assert message.endswith("repair or remove them (and their lines), or raise the limit (--corrupt-limit)")
    assert len(read_corrupt(log)) == 2


def test_a_limit_of_none_stops_at_the_first(data: ImageConfig) -> None:
    with pytest.raises(InputError, match="is no readable image .*; repair or remove it"):
        batches(load_images(replace(data, corrupt_limit=0.0)).train)
    with pytest.raises(InputError, match="corrupt_limit 1.0 is no share"):
        load_images(replace(data, corrupt_limit=1.0))


def test_the_count_goes_on_when_a_run_resumes_and_over_its_processes(data: ImageConfig, tmp_path: Path) -> None:
    train = load_images(data).train
    log, lines = tmp_path / "corrupt.txt", []
    batches(train, corrupt_log=log, on_corrupt=lines.append)
    batches(train, corrupt_log=log, on_corrupt=lines.append, start=2)
    assert len(lines) == len(log.read_text().splitlines()) == 2
    with log.open("a") as file:
        file.write("of another process\tcut off\nand another\tcut off\nhalf a li")
    with pytest.raises(InputError, match="4 of 12 training images .* more than the 3"):
        batches(train, corrupt_log=log)


def test_a_line_cut_off_by_a_kill_is_not_counted_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = tmp_path / "corrupt.txt"
    file.write_text("a\tcut off\nb\tcu")
    log = CorruptLog(limit=5, samples=100, file=file)
    odd = "tab\tnewline\nsurrogate\udcff ü"
    log.add([Unreadable("a", "again"), Unreadable("b", "bad\nness"), Unreadable(odd, "odd")])
    CorruptLog(limit=5, samples=100, file=file).add([Unreadable(odd, "odd"), Unreadable("c", "bad")])
    assert list(read_corrupt(file)) == ["a", "b", "tab\\tnewline\\nsurrogate\udcff ü", "c"]


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    log = CorruptLog(limit=5, samples=100, file=tmp_path / "nowhere" / "corrupt.txt")
    with pytest.raises(InputError, match=r"cannot write '.*corrupt\.txt'"):
        log.add([Unreadable("a", "bad")])
    log = CorruptLog(limit=5, samples=100, file=tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        log.add([Unreadable("a", "bad")])


def test_evaluation_replaces_nothing(data: ImageConfig) -> None:
    train = load_images(data).train
    with pytest.raises(InputError, match="is no readable image"):
        list(EvalLoader(train))
    with pytest.raises(InputError, match="is no readable image"):
        train[1]


def test_a_set_without_a_readable_image_is_an_error_that_ends(data: ImageConfig) -> None:
    train = load_images(data).train
    assert isinstance(train, StoredImages)
    broken = replace(train, source=train.source.subset(torch.tensor([1, 9])), labels=train.labels[[1, 9]])
    with pytest.raises(InputError, match="100 images drawn from the training set, none readable"):
        list(islice(train_batches(broken, Order(2, 2, 0)), 1))


def test_a_file_that_is_gone_is_not_replaced(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images")
    train = load_images(ImageConfig(str(folder), image_size=16, corrupt_limit=0.5)).train
    (folder / "train" / "cat" / "2.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot read '.*cat/2\.jpg' \(.*No such file"):
        batches(train)


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow's, on metadata
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
@settings(deadline=None, max_examples=40)
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4), keep=st.floats(0, 1))
def test_damaged_bytes_are_an_image_or_unreadable(kind: str, flips: list[tuple[float, int]], keep: float) -> None:
    content = bytearray(encoded(kind))
    for place, mask in flips:
        content[int(place * min(len(content), 400))] ^= mask
    with suppress(UnreadableImage):  # and nothing else
        image = decode_image(io.BytesIO(bytes(content[: int(keep * len(content)) or 1])), "x")
        assert image.mode == "RGB"


def test_a_bomb_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decode_image(io.BytesIO(jpeg()), "x")
