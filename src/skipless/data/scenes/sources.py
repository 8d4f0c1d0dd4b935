"""Sources of scenes: real objects with their outlines, and photos as backgrounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from skipless.choices import SceneObjects as Objects
from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion, load_digits, load_fashion
from skipless.data.memory import MemoryImages
from skipless.display import Record
from skipless.errors import InputError

PHOTOS: tuple[str, ...] = ("china.jpg", "flower.jpg")  # scikit-learn's sample images, 640 x 427
_TRAIN_SHARE = 0.6  # share of a photo's columns for training; the others are for validation
_BACKGROUND = {"fashion": 8, "digits": 75}  # grey levels up to this are background


@dataclass(frozen=True, eq=False, repr=False)
class Sources(Record):
    """Objects and photos of one split; the splits have none in common.

    Attributes:
        kind: `fashion` or `digits`.
        images: grey objects on black.
        members: indices of the images of every class.
        photos: the split's part of every photo.
    """

    kind: Literal["fashion", "digits"]
    images: UInt8[np.ndarray, "n s s"]
    members: Sequence[Int64[np.ndarray, " _"]]
    photos: Sequence[UInt8[np.ndarray, "_ _ 3"]]

    def cutout(self, index: int) -> Image.Image:
        """Cut an object out of its image; the result is grey with an alpha channel, above 127 within the outline."""
        grey = np.pad(self.images[index], 1)
        if self.kind == "fashion":  # dark parts within a garment belong to it
            alpha = _filled(grey > _BACKGROUND[self.kind]) * np.uint8(255)
        else:  # the hole of a 0 does not belong to it; its scaled levels give 8 x 8 pixels a smooth outline
            alpha = np.minimum(grey, 255 * _BACKGROUND[self.kind] // 127) * 127.0 // _BACKGROUND[self.kind]
        rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
        window = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
        return Image.fromarray(np.stack([grey, alpha.astype(np.uint8)], axis=-1)[window])


def load_sources(objects: Objects) -> tuple[dict[str, Sources], tuple[str, ...]]:
    """Load the objects and photos of the splits `train` and `val`, and the names of the ten classes.

    The splits have no object in common (they use the two splits of Fashion-MNIST or of the digits) and no pixel of a
    photo.

    Args:
        objects: `fashion`, `digits`, or `auto`: Fashion-MNIST if it is on this machine, else the digits.

    Raises:
        InputError: if scikit-learn is missing, or Fashion-MNIST is asked for but not available.
    """
    if objects not in ("auto", "fashion", "digits"):
        raise InputError(f"no objects {objects!r}; give fashion, digits or auto")
    kind = objects if objects != "auto" else _available()
    train, val, classes = load_digits() if kind == "digits" else load_fashion()
    photos = _photos()
    border = round(photos[0].shape[1] * _TRAIN_SHARE)
    return {
        "train": _sources(kind, train, [photo[:, :border] for photo in photos]),
        "val": _sources(kind, val, [photo[:, border:] for photo in photos]),
    }, classes


def _available() -> Literal["fashion", "digits"]:
    found = any(find_fashion(folder) is not None for folder in (DEBIAN_FASHION, cache_folder()))
    return "fashion" if found else "digits"


def _sources(kind: Literal["fashion", "digits"], images: MemoryImages, photos: list[np.ndarray]) -> Sources:
    labels = images.labels.numpy()
    members = [np.flatnonzero(labels == label) for label in range(10)]
    pixels = images.images[:, 0].numpy()
    bright = pixels.max(axis=(1, 2)) > _BACKGROUND[kind]  # an empty image has no outline
    return Sources(kind, pixels, [part[bright[part]] for part in members], photos)


def _photos() -> list[UInt8[np.ndarray, "h w 3"]]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError("the scenes' photos come with scikit-learn: pip install 'skipless[demo]'") from error
    samples: Any = datasets
    return [np.asarray(samples.load_sample_image(name)) for name in PHOTOS]


def _filled(outline: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    from scipy import ndimage

    return np.asarray(ndimage.binary_fill_holes(outline))
