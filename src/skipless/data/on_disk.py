"""Images in files or shards on disk, decoded and augmented as they are fetched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from PIL import Image
from torch import Tensor

from skipless.data.augmentation import PhotoTransform
from skipless.data.image_source import ImageSource
from skipless.data.loading.corrupt import Unreadable
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed, preserved_random_state, seed_all
from skipless.data.loading.shared_memory import empty_batch
from skipless.data.loading.substitutes import SubstitutingReader
from skipless.display import Record

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, " b"]]


@dataclass(frozen=True, eq=False, repr=False)
class StoredImages(Record):
    """The images of one split.

    Attributes:
        source: where the images are stored; maps an index to an image.
        labels: class of every image.
        transform: maps PIL images to normalised tensors. It draws from the global generators, which are seeded for
            every sample.
        corrupt_limit: number of images that may be unreadable in training, where another image replaces each.
    """

    source: ImageSource
    labels: Int64[Tensor, " n"]
    transform: PhotoTransform
    corrupt_limit: int = 0

    def _summary(self) -> str:
        return f"{len(self):,} images, {type(self.source).__name__}"

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "c h w"], Int64[Tensor, ""]]:
        """Return one image and its label; an augmented set gives it as in epoch 0 of seed 0."""
        images, labels = self.__getitems__(BatchKey(0, 0, torch.tensor([index])))
        return images[0], labels[0]

    def __getitems__(self, key: BatchKey) -> Batch:
        """Return a batch; its augmentation is a function of (seed, epoch, index).

        Raises:
            InputError: if a file is not an image, or is truncated; the message names it.
        """
        return self._batch(key, lambda index: (index, self.source.read(index)))

    def fetch(self, key: BatchKey) -> tuple[Batch, tuple[Unreadable, ...]]:
        """Return a batch for training, in which another image, with its own label, replaces each unreadable one.

        Returns:
            The batch, and the images that could not be read.

        Raises:
            InputError: if an image is unreadable and `corrupt_limit` is 0.
        """
        read = SubstitutingReader(self.source, key, self.corrupt_limit)
        return self._batch(key, read), tuple(read.unreadable)

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "StoredImages":
        """Return the same images with another mean and std for each channel, for values in 0 to 1."""
        return replace(self, transform=self.transform.normalised_by(mean, std))

    @property
    def root(self) -> Path:
        """The folder that holds the files or shards."""
        return self.source.root

    @property
    def files(self) -> np.ndarray:
        """Names of the images below the root, as bytes."""
        return self.source.files

    def _batch(self, key: BatchKey, read: Callable[[int], tuple[int, Image.Image]]) -> Batch:
        """Read, augment and stack images. A replacement is augmented by the index of the image that it replaces."""
        images, indices = empty_batch((len(key.indices), 3, self.transform.size, self.transform.size)), []
        with preserved_random_state():
            for out, index in zip(images, key.indices.tolist(), strict=True):
                actual, image = read(index)
                seed_all(derive_seed(key.seed, "augment", key.epoch, index))
                self.transform.into(out, image)
                indices.append(actual)
        return images, self.labels[indices]
