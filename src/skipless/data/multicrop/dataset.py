"""Images of a folder or of shards, each fetched as a stack of augmented crops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skipless.data.folder import EXTENSIONS, FolderFiles, image_files
from skipless.data.image_source import ImageSource
from skipless.data.loading.corrupt import Unreadable
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed
from skipless.data.loading.shared_memory import empty_batch
from skipless.data.loading.substitutes import SubstitutingReader
from skipless.data.multicrop.apply import augment_all, to_pixels
from skipless.data.multicrop.config import MultiCropConfig
from skipless.data.multicrop.params import sample_crop_params
from skipless.data.multicrop.planes import pixel_scale_of
from skipless.data.shards import find_shards, index_shards
from skipless.errors import InputError

Crops = list[Tensor]


@dataclass(frozen=True, eq=False)
class MultiCropImages:
    """Crops of images that are decoded as they are fetched; labels are not looked at.

    Attributes:
        source: where the images are stored.
        config: how the crops are made.
        corrupt_limit: so many of the images may be unreadable in training, where another one takes the place of each.
    """

    source: ImageSource
    config: MultiCropConfig = field(default_factory=MultiCropConfig)
    corrupt_limit: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, key: BatchKey) -> tuple[Crops]:
        """Give a batch as a function of (seed, epoch, index): one tensor (b, 3, s, s) per crop, the global ones first.

        Raises:
            InputError: if a file is no image, or is cut off; the message names it.
        """
        return self._batch(key, lambda index: (index, self.source.read(index)))

    def fetch(self, key: BatchKey) -> tuple[tuple[Crops], tuple[Unreadable, ...]]:
        """Give a batch for training, and what could not be read: another image takes the place of each.

        Raises:
            InputError: if none may be unreadable, and one is.
        """
        read = SubstitutingReader(self.source, key, self.corrupt_limit)
        return self._batch(key, read), tuple(read.unreadable)

    def _batch(self, key: BatchKey, read: Callable[[int], tuple[int, Image.Image]]) -> tuple[Crops]:
        config, count = self.config, len(key.indices)
        kind = torch.uint8 if config.pixels == "uint8" else torch.float32
        crops = [empty_batch((count, 3, size, size), kind) for size in config.sizes]
        arrays, unit = [crop.numpy() for crop in crops], pixel_scale_of(config)
        with _one_thread():
            for row, index in enumerate(key.indices.tolist()):
                random = Random(derive_seed(key.seed, "crops", key.epoch, index))
                _, image = read(index)
                draws, pixels = sample_crop_params(random, image.height, image.width, config), to_pixels(image)
                for array, crop in zip(arrays, augment_all(pixels, draws, config.mode, unit), strict=True):
                    array[row] = np.rint(crop) if config.pixels == "uint8" else crop
        return (crops,)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work as the loader's workers do: how work is split among threads can move the last bit of a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_multicrop(
    data: str | Path, config: MultiCropConfig | None = None, *, corrupt_limit: float = 0.001
) -> MultiCropImages:
    """Find the images to pretrain on.

    Args:
        data: a folder, whose images below `train` are taken where that exists, else all; or shards as in
            `ImageConfig.data`, those named `train` where there are any, else all.
        config: how the crops are made; DINO's way by default.
        corrupt_limit: share of the images that may be unreadable; each is replaced by another one.

    Raises:
        InputError: if they are missing, or there is no image.
    """
    shards = find_shards(str(data))
    if shards is not None:
        training = shards.split("train")
        source, _ = index_shards(training if training.files else shards, labelled=False)
    else:
        source = _below(Path(data).expanduser(), str(data))
    return MultiCropImages(source, config or MultiCropConfig(), int(corrupt_limit * len(source)))


def _below(root: Path, named: str) -> FolderFiles:
    if not root.is_dir():
        raise InputError(f"no folder {named!r}; give one with images, or with train/CLASS/*.jpg below it, or shards")
    root = root / "train" if (root / "train").is_dir() else root
    files = sorted(image_files(root))
    if not files:
        raise InputError(f"no image below {str(root)!r} (looked for {', '.join(EXTENSIONS)}); give another folder")
    return FolderFiles(root, np.array(files, dtype=np.bytes_))
