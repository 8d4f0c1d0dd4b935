"""Whatever Pillow raises makes an image unreadable, in every reader; and modes whose white is known are read right."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from data.stored_images import write_folder, write_tar
from PIL import Image, PngImagePlugin
from reference.pictures import jpeg, png

from skipless.data import ImageConfig, load_images
from skipless.data.dense import UnreadableItem, ade20k_segmentation, contact_sheet
from skipless.data.dense.reading import read_rgb
from skipless.data.folder import UnreadableImage, decode_image, read_image, to_mode
from skipless.data.loading.loader import BatchKey
from skipless.data.multicrop import load_multicrop
from skipless.data.on_disk import StoredImages
from skipless.errors import InputError
from skipless.evaluators.features.extraction import ImageTransform
from skipless.evaluators.probe.dense_set import DenseSet
from skipless.studies.feature_pictures import find_pictures


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def oversized_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    return encoded(Image.new("L", (12, 8)), "PNG", pnginfo=text)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png() -> bytes:
    """A header of 30000 x 30000 pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100)))


def tiff(bits: int, photometric: int, content: bytes, width: int, **other: int) -> bytes:
    """One row of grey."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1, 279: len(content), 273: 0}
    tags |= {int(tag[1:]): value for tag, value in other.items()}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + content


DAMAGED: dict[str, Callable[[], bytes]] = {
    "oversized text": oversized_text,
    "pixel limit": huge_png,
    "no image": lambda: b"<html>",
    "empty": lambda: b"",
    "cut": lambda: encoded(Image.new("RGB", (64, 64), (9, 8, 7)), "JPEG")[:300],
    "seek beyond": lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 - 1),
    "seek far beyond": lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1),
    "floats": lambda: encoded(Image.new("F", (12, 8), 0.5), "TIFF"),
    "integers of 32 bits": lambda: encoded(Image.new("I", (12, 8), 200), "TIFF"),
    "bad chunk": lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0" * 3),
}
damaged = pytest.mark.parametrize("content", [make() for make in DAMAGED.values()], ids=list(DAMAGED))


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        jpeg(tmp_path / "images" / "training" / f"{name}.jpg")
        png(tmp_path / "annotations" / "training" / f"{name}.png", np.ones((8, 12)))
    return tmp_path


@damaged
def test_what_a_file_holds_never_looks_like_a_failing_disk(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / "x.jpg")
    assert "0x" not in str(caught.value)  # no address, which would differ from run to run
    with pytest.raises(UnreadableItem):
        read_rgb(tmp_path / "x.jpg")
    with pytest.raises(UnreadableItem):
        find_pictures(tmp_path)


@damaged
def test_a_dense_study_goes_on_past_an_image(ade: Path, content: bytes) -> None:
    data = ade20k_segmentation(ade)
    data.items[1].image.write_bytes(content)
    for load in (data.load, data.load_image):
        with pytest.raises(UnreadableItem, match=r"b\.jpg' is no readable image"):
            load(1)
    with suppress(UnreadableItem):  # and nothing else: the mask is whole, but the image's header may have another size
        assert data.load_mask(1).shape == (8, 12)
    assert len(contact_sheet(ade / "sheet.png", data)) == 1


@damaged
def test_a_dense_study_goes_on_past_a_mask(ade: Path, content: bytes) -> None:
    data = ade20k_segmentation(ade)
    data.items[1].mask.write_bytes(content)
    with pytest.raises(UnreadableItem, match=r"b\.png' is "):
        data.load_mask(1)
    assert data.load(2)[1].shape == (8, 12)


@damaged
def test_training_replaces_it_and_evaluation_names_it(tmp_path: Path, content: bytes) -> None:
    root = write_folder(tmp_path / "images")
    (root / "train" / "cat" / "1.jpg").write_bytes(content)
    bad = [(f"{i}.{kind}", value) for i in range(3) for kind, value in (("jpg", content), ("cls", b"0"))]
    good = [("x.jpg", (root / "val/cat/0.jpg").read_bytes()), ("x.cls", b"0")]
    write_tar(tmp_path / "shards" / "train-0.tar", [*bad, *good])
    write_tar(tmp_path / "shards" / "val-0.tar", bad)
    key = BatchKey(0, 0, torch.arange(4))
    for named, count in ((root, 1), (tmp_path / "shards", 3)):
        data = load_images(ImageConfig(str(named), image_size=16, corrupt_limit=0.9))
        assert isinstance(data.train, StoredImages)
        assert len({name for name, _ in data.train.fetch(key)[1]}) == count
        with pytest.raises(UnreadableImage):
            data.train.__getitems__(key)
    crops = load_multicrop(root, corrupt_limit=0.9)
    assert len(crops.fetch(BatchKey(0, 0, torch.arange(2)))[1]) == 1


@pytest.mark.parametrize("error", [OSError(22, "Invalid argument"), SyntaxError("x"), IndexError(), KeyError(1)])
def test_other_peoples_readers_may_raise_what_pillow_does(unchecked: None, error: Exception) -> None:
    class Masks:
        classes, ignore = ("a", "b"), None

        def __len__(self) -> int:
            return 3

        def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
            raise error

    class Store:
        failures, grids, good = {}, ((1, 1),) * 3, (0, 1, 2)

        def __len__(self) -> int:
            return 3

    data = DenseSet(Store(), Masks(), "val")  # pyright: ignore[reportArgumentType]
    assert data.mask(1) is None
    assert data.skipped[1]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_masks_must_keep_ids(ade: Path, kind: str) -> None:
    data = ade20k_segmentation(ade)
    data.items[0].mask.write_bytes(encoded(Image.new("L", (12, 8), 1), kind))
    with pytest.raises(UnreadableItem, match=r"a\.png' is (a JPEG, which does not keep ids|of mode 'RGB')"):
        data.load_mask(0)


@pytest.mark.parametrize("bits", [2, 4])
def test_masks_of_few_bits_are_refused_where_their_levels_are_spread(ade: Path, bits: int) -> None:
    rows = b"".join(b"\0" + bytes([0b01010101] * (12 * bits // 8)) for _ in range(8))
    grey = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 8, bits, 0, 0, 0, 0))
    grey += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    data = ade20k_segmentation(ade)
    data.items[0].mask.write_bytes(grey)
    with pytest.raises(UnreadableItem, match=rf"is of mode 'L;{bits}', not ids"):
        data.load_mask(0)
    palette = Image.new("P", (12, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    data.items[0].mask.write_bytes(encoded(palette, "PNG", bits=bits))
    assert (data.load_mask(0) == 0).all()  # id 1 is class 0


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (tiff(16, 1, np.array([0, 16448, 65535], "<u2").tobytes(), 3), [0, 64, 255]),
        (tiff(16, 0, np.array([0, 16448, 65535], "<u2").tobytes(), 3), [255, 191, 0]),  # white is zero
        (tiff(8, 0, bytes([0, 64, 255]), 3), [255, 191, 0]),
        (tiff(12, 1, bytes([0x01, 0x00, 0x00, 0x02, 0x00, 0x00]), 4), [1, 0, 2, 0]),
        (tiff(12, 1, bytes([0x00, 0x08, 0x08, 0xFF, 0xFF, 0xFF]), 4), [0, 128, 255, 255]),
        (b"P5 3 1 1023\n" + np.array([0, 257, 1023], ">u2").tobytes(), [0, 64, 255]),
        (b"P5 3 1 15\n" + bytes([0, 4, 15]), [0, 68, 255]),
    ],
    ids=["16 bits", "white is zero", "8 bits, white is zero", "dark 12 bits", "12 bits", "10 bits", "4 bits"],
)
def test_white_is_what_the_file_says(content: bytes, levels: list[int]) -> None:
    image = decode_image(io.BytesIO(content), "x")
    assert np.asarray(image)[0, :, 0].tolist() == levels


@pytest.mark.parametrize("highest", [0, 1, 200, 255, 4095, 65535, 70000])
@pytest.mark.parametrize("signed", [1, 2])
def test_integers_of_32_bits_in_a_file_are_refused(highest: int, signed: int) -> None:
    content = tiff(32, 1, np.array([0, highest // 2, highest], "<i4").tobytes(), 3, t339=signed)
    with pytest.raises(UnreadableImage, match=r"in mode I, .*, nothing says which value is white: scale to 0\.\.255"):
        decode_image(io.BytesIO(content), "x")


@pytest.mark.parametrize("highest", [1, 128, 255])
def test_integers_of_32_bits_in_memory_that_may_be_of_8_are_refused(highest: int) -> None:
    image = Image.fromarray(np.array([[0, highest]], dtype=np.int32))
    with pytest.raises(InputError, match=r"in mode I, 32-bit integers up to 255, nothing says"):
        ImageTransform((0.5,), (0.5,), (1, 1))(image)
    assert np.asarray(to_mode(Image.new("I", (2, 1), 0), "L", "x")).tolist() == [[0, 0]]


def test_modes_that_pillow_cannot_convert_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="conversion from La"):
        to_mode(Image.new("La", (2, 2)), "RGB", "x")


def test_reading_from_memory_changes_no_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    kinds = {"JPEG": {}, "PNG": {}, "WEBP": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "PPM": {}}
    for kind, options in kinds.items():
        file = tmp_path / f"x.{kind.lower()}"
        Image.fromarray(pixels).save(file, kind, **options)
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(read_image(file)), np.asarray(image.convert("RGB")))
