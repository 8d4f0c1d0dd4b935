"""MultiCropImages: images of a folder or of shards, fetched as several augmented crops."""

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
from skipless.display import Record
from skipless.errors import InputError

Crops = list[Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class MultiCropImages(Record):
    """Augmented crops of images, without labels; images are decoded as they are fetched.

    Attributes:
        source: where the images are stored; maps an index to an image.
        config: options of the augmentation.
        corrupt_limit: number of images that may be unreadable in training, where another image replaces each.
    """

    source: ImageSource
    config: MultiCropConfig = field(default_factory=MultiCropConfig)
    corrupt_limit: int = 0

    def _summary(self) -> str:
        return f"{len(self):,} images, {type(self.source).__name__}"

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, key: BatchKey) -> tuple[Crops]:
        """Return a batch, a function of (seed, epoch, index): one tensor (b, 3, s, s) per crop, global crops first.

        Raises:
            InputError: if a file is not an image, or is truncated; the message names it.
        """
        return self._batch(key, lambda index: (index, self.source.read(index)))

    def fetch(self, key: BatchKey) -> tuple[tuple[Crops], tuple[Unreadable, ...]]:
        """Return a batch for training, and the images that could not be read, each replaced by another image.

        Raises:
            InputError: if an image is unreadable and `corrupt_limit` is 0.
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
    """Use one thread, as worker processes do: the number of threads can change the last bit of a sum."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_multicrop(
    data: str | Path, config: MultiCropConfig | None = None, *, corrupt_limit: float = 0.001
) -> MultiCropImages:
    """Find the images of a pretraining.

    Args:
        data: a folder of images, or shards as in `ImageConfig.data`. If the folder has a subfolder `train`, or shards
            are named `train`, only those images are used.
        config: options of the augmentation; by default DINO's.
        corrupt_limit: share of the images that may be unreadable; each is replaced by another image.

    Raises:
        InputError: if the folder or a shard is missing, or there is no image.
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
