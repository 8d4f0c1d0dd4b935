"""Images that stay where they are stored, in files or shards, decoded and augmented as they are fetched."""

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

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, " b"]]


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The images of one split.

    Attributes:
        source: where they are stored; gives an image for an index.
        labels: class of every image.
        transform: from PIL images to normalised tensors; draws from the global generators, which are seeded for every
            sample.
        corrupt_limit: so many of them may be unreadable in training, where another one takes the place of each.
    """

    source: ImageSource
    labels: Int64[Tensor, " n"]
    transform: PhotoTransform
    corrupt_limit: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "c h w"], Int64[Tensor, ""]]:
        """Give one image, augmented as in the first epoch of seed 0 where the set is augmented, and its label."""
        images, labels = self.__getitems__(BatchKey(0, 0, torch.tensor([index])))
        return images[0], labels[0]

    def __getitems__(self, key: BatchKey) -> Batch:
        """Give a batch, augmented as a function of (seed, epoch, index).

        Raises:
            InputError: if a file is no image, or is cut off; the message names it.
        """
        return self._batch(key, lambda index: (index, self.source.read(index)))

    def fetch(self, key: BatchKey) -> tuple[Batch, tuple[Unreadable, ...]]:
        """Give a batch for training: another image, with its own label, takes the place of an unreadable one.

        Returns:
            The batch, and what could not be read.

        Raises:
            InputError: if none may be unreadable, and one is.
        """
        read = SubstitutingReader(self.source, key, self.corrupt_limit)
        return self._batch(key, read), tuple(read.unreadable)

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "StoredImages":
        """The same images with these numbers for each channel, of values in 0 to 1, to normalise by."""
        return replace(self, transform=self.transform.normalised_by(mean, std))

    @property
    def root(self) -> Path:
        """The folder that holds the files or shards."""
        return self.source.root

    @property
    def files(self) -> np.ndarray:
        """The images' names below it, as bytes."""
        return self.source.files

    def _batch(self, key: BatchKey, read: Callable[[int], tuple[int, Image.Image]]) -> Batch:
        """Augment by the index that was asked for: the image that takes its place is not augmented as in its own."""
        images, indices = empty_batch((len(key.indices), 3, self.transform.size, self.transform.size)), []
        with preserved_random_state():
            for out, index in zip(images, key.indices.tolist(), strict=True):
                actual, image = read(index)
                seed_all(derive_seed(key.seed, "augment", key.epoch, index))
                self.transform.into(out, image)
                indices.append(actual)
        return images, self.labels[indices]
