"""Images of a folder, each fetched as a stack of augmented crops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from skipless.data.folder import EXTENSIONS, read_image
from skipless.data.loader import BatchKey
from skipless.data.multicrop.apply import augment_all, to_pixels
from skipless.data.multicrop.config import MultiCropConfig
from skipless.data.multicrop.draws import draw_crops_of
from skipless.data.multicrop.planes import unit_of
from skipless.data.seeding import derive_seed
from skipless.errors import InputError

Crops = list[Tensor]


@dataclass(frozen=True, eq=False)
class MultiCropImages:
    """Crops of images that are read from their files; labels are not looked at.

    Attributes:
        root: the folder of the images.
        files: paths below it, as bytes: one flat array, which forked workers share rather than copy.
        config: how the crops are made.
    """

    root: Path
    files: np.ndarray
    config: MultiCropConfig = field(default_factory=MultiCropConfig)

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, key: BatchKey) -> tuple[Crops]:
        """Give a batch as a function of (seed, epoch, index): one tensor (b, 3, s, s) per crop, the global ones first.

        Raises:
            InputError: if a file is no image, or is cut off; the message names it.
        """
        config, count = self.config, len(key.indices)
        kind = torch.uint8 if config.pixels == "uint8" else torch.float32
        crops = [torch.empty(count, 3, size, size, dtype=kind) for size in config.sizes]
        arrays, unit = [crop.numpy() for crop in crops], unit_of(config)
        with _one_thread():
            for row, index in enumerate(key.indices.tolist()):
                random = Random(derive_seed(key.seed, "crops", key.epoch, index))
                image = read_image(self.path(index))
                draws, pixels = draw_crops_of(random, image.height, image.width, config), to_pixels(image)
                for array, crop in zip(arrays, augment_all(pixels, draws, config.mode, unit), strict=True):
                    array[row] = np.rint(crop) if config.pixels == "uint8" else crop
        return (crops,)

    def path(self, index: int) -> Path:
        """Give the file of one image."""
        return self.root / os.fsdecode(bytes(self.files[index]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work as the loader's workers do: how work is split among threads can move the last bit of a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_multicrop(folder: str | Path, config: MultiCropConfig | None = None) -> MultiCropImages:
    """List the images to pretrain on: those below `folder/train` where that exists, else those below `folder`.

    Raises:
        InputError: if the folder is missing or has no image.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"no folder {str(folder)!r}; give one with images, or with train/CLASS/*.jpg below it")
    root = root / "train" if (root / "train").is_dir() else root
    files = sorted(
        os.fsencode(os.path.relpath(os.path.join(below, name), root))
        for below, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS)
    )
    if not files:
        raise InputError(f"no image below {str(root)!r} (looked for {', '.join(EXTENSIONS)}); give another folder")
    return MultiCropImages(root, np.array(files, dtype=np.bytes_), config or MultiCropConfig())
