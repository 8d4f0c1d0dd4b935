"""Built-in image sets: digits (part of scikit-learn) and Fashion-MNIST."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from skipless.data.memory import MemoryImages, channel_statistics
from skipless.errors import InputError
from skipless.optional import how_to_install

DIGITS_TRAIN = 1397  # of 1797; 400 test images put the standard error of an accuracy near 90 % at 1.5 points

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_IDX_UINT8 = 0x08  # the third byte of an idx file names its element type
_PARTS = {"train": "train", "val": "t10k"}


def load_digits() -> tuple[MemoryImages, MemoryImages, tuple[str, ...]]:
    """Load scikit-learn's 8 x 8 grey digits, with a fixed split into 1,397 training and 400 test images.

    Returns:
        Training set, test set, and the names of the ten classes.

    Raises:
        InputError: if scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(f"the digits come with scikit-learn: {how_to_install('sklearn')}") from error
    digits: Any = datasets.load_digits()
    images = torch.from_numpy(digits.images * 15).byte()[:, None]  # 17 levels, 0 to 16; 15 keeps them integers
    labels = torch.from_numpy(digits.target).long()
    # RandomState's stream never changes (NEP 19), so the 400 test images are the same everywhere.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(images)))
    mean, std = channel_statistics(images[order[:DIGITS_TRAIN]])
    train, test = (
        MemoryImages(images[part], labels[part], mean, std) for part in (order[:DIGITS_TRAIN], order[DIGITS_TRAIN:])
    )
    return train, test, tuple(map(str, range(10)))


def load_fashion(folder: Path | None = None) -> tuple[MemoryImages, MemoryImages, tuple[str, ...]]:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images, 28 x 28 grey.

    Args:
        folder: folder with the four idx files (gzipped or not), or torchvision's root above `FashionMNIST/raw`. By
            default, the folder of Debian's package, then the cache, then a download by torchvision into the cache.

    Raises:
        InputError: if the files are neither found nor can be downloaded, or one is corrupt.
    """
    found = find_fashion(folder) if folder is not None else _found_or_downloaded()
    if found is None:
        raise InputError(f"no Fashion-MNIST in {str(folder)!r}: looked for {_file_name('train', 'images')}[.gz] there")
    images, labels = ({part: _read(found, part, kind) for part in _PARTS} for kind in ("images", "labels"))
    for part in _PARTS:
        if len(images[part]) != len(labels[part]) or images[part].ndim != 3 or labels[part].ndim != 1:
            raise InputError(f"{found}: {part} images {images[part].shape} do not fit labels {labels[part].shape}")
    pixels = {part: torch.from_numpy(images[part])[:, None] for part in _PARTS}
    mean, std = channel_statistics(pixels["train"])
    train, test = (MemoryImages(pixels[part], torch.from_numpy(labels[part]).long(), mean, std) for part in _PARTS)
    return train, test, FASHION_CLASSES


def find_fashion(folder: Path) -> Path | None:
    """Return the folder with the idx files, the given one or torchvision's below it; None if there is none."""
    for candidate in (folder, folder / "FashionMNIST" / "raw", folder / "raw"):
        if _existing(candidate, "train", "images") is not None:
            return candidate
    return None


def read_idx(file: Path) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes, gzipped or not.

    The format is: two zero bytes, element type, number of axes, each axis as a big-endian int32, the elements.

    Raises:
        InputError: if the file cannot be read, is truncated, or is not an idx file of unsigned bytes.
    """
    remedy = f"remove {str(file)!r} and fetch it again"
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{str(file)!r} is corrupt ({error}); {remedy}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _IDX_UINT8:
        raise InputError(f"{str(file)!r} is no idx file of unsigned bytes (starts with {raw[:4]!r}); {remedy}")
    start = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    if len(raw) - start != math.prod(shape):
        raise InputError(f"{str(file)!r} is cut off: {len(raw)} bytes for shape {shape}; {remedy}")
    return np.frombuffer(bytearray(raw[start:]), dtype=np.uint8).reshape(shape)


def cache_folder() -> Path:
    """Return the cache folder: `$XDG_CACHE_HOME/skipless`, or `~/.cache/skipless`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skipless"


def _found_or_downloaded() -> Path:
    cache = cache_folder()
    for folder in (DEBIAN_FASHION, cache):
        if (found := find_fashion(folder)) is not None:
            return found
    from torchvision import datasets

    try:
        cache.mkdir(parents=True, exist_ok=True)
        datasets.FashionMNIST(str(cache), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"Fashion-MNIST is neither in {DEBIAN_FASHION} nor in {cache}, and the download failed ({error}); either "
            "`apt install dataset-fashion-mnist`, or copy its four idx files to a folder and give that as the data"
        ) from error
    return cache / "FashionMNIST" / "raw"


def _file_name(part: str, kind: str) -> str:
    return f"{_PARTS[part]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"


def _existing(folder: Path, part: str, kind: str) -> Path | None:
    name = _file_name(part, kind)
    return next((file for file in (folder / f"{name}.gz", folder / name) if file.is_file()), None)


def _read(folder: Path, part: str, kind: str) -> UInt8[np.ndarray, "..."]:
    file = _existing(folder, part, kind)
    if file is None:
        raise InputError(f"{folder} lacks {_file_name(part, kind)!r} (or the same with .gz); fetch the set again")
    return read_idx(file)
