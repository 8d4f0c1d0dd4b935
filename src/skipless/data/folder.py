"""ImageNet-style folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, decoded and augmented as they are fetched."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from PIL import Image
from torch import Tensor

from skipless.data.loader import BatchKey
from skipless.data.seeding import derive_seed, preserved_random_state, seed_all
from skipless.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")

Transform = Callable[[Image.Image], Float32[Tensor, "c h w"]]


@dataclass(frozen=True, eq=False)
class FolderImages:
    """The images of one split, read from their files.

    Attributes:
        root: the folder of the split.
        files: paths below it, as bytes: one flat array, which forked workers share rather than copy.
        labels: class of every file.
        transform: PIL image to normalised tensor; draws from the global generators, which are seeded for every sample.
    """

    root: Path
    files: np.ndarray
    labels: Int64[Tensor, " n"]
    transform: Transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "c h w"], Int64[Tensor, ""]]:
        """Give one image, augmented as in the first epoch of seed 0 where the set is augmented, and its label."""
        images, labels = self.__getitems__(BatchKey(0, 0, torch.tensor([index])))
        return images[0], labels[0]

    def __getitems__(self, key: BatchKey) -> tuple[Float32[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        """Give a batch, augmented as a function of (seed, epoch, index).

        Raises:
            InputError: if a file is no image, or is cut off; the message names it.
        """
        images = []
        with preserved_random_state():
            for index in key.indices.tolist():
                seed_all(derive_seed(key.seed, "augment", key.epoch, index))
                images.append(self.transform(read_image(self.root / os.fsdecode(bytes(self.files[index])))))
        return torch.stack(images), self.labels[key.indices]


def read_image(file: Path) -> Image.Image:
    """Decode one file to RGB.

    Raises:
        InputError: if that fails.
    """
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        raise InputError(f"{str(file)!r} is no readable image ({error}); repair or remove it") from error


def scan_split(root: Path) -> tuple[tuple[str, ...], np.ndarray, Int64[Tensor, " n"]]:
    """List a split: the sorted names of its classes, the sorted files below them, and the class of every file.

    Raises:
        InputError: if the folder is missing, or a class has no image.
    """
    if not root.is_dir():
        raise InputError(
            f"no folder {str(root)!r}; expected train/CLASS/*.jpg and val/CLASS/*.jpg below the data folder"
        )
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir()))
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(_image_files(root, name))
        if not found:
            raise InputError(
                f"no image in {str(root / name)!r} (looked for {', '.join(EXTENSIONS)}); fill or remove it"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise InputError(f"no class folders in {str(root)!r}; expected {root.name}/CLASS/*.jpg")
    return classes, np.array(files, dtype=np.bytes_), torch.tensor(labels)


def _image_files(root: Path, name: str) -> Iterator[bytes]:
    for folder, _, names in os.walk(root / name, followlinks=True):
        for file in names:
            if file.lower().endswith(EXTENSIONS):
                yield os.fsencode(os.path.relpath(os.path.join(folder, file), root))
