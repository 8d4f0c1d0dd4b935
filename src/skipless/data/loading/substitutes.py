"""Substitutes for unreadable images in training.

A substitute depends only on (seed, epoch, index) and the files. Neither the number of workers nor the step at which a
run is resumed changes a batch. Evaluation has no substitutes, which would change the score.
"""

from dataclasses import dataclass, field

from PIL import Image

from skipless.data.folder import UnreadableImage
from skipless.data.image_source import ImageSource
from skipless.data.loading.corrupt import Unreadable, quote_names
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed
from skipless.errors import InputError

ATTEMPTS = 100  # so many unreadable images in a row mean that the set is damaged, not single images


@dataclass(eq=False)
class SubstitutingReader:
    """Reads the images of one batch, and replaces an unreadable one by one drawn by (seed, epoch, index).

    Attributes:
        source: maps an index to an image.
        key: key of the batch.
        limit: number of images of the training set that may be unreadable; 0 replaces nothing.
        unreadable: the images that could not be read.
    """

    source: ImageSource
    key: BatchKey
    limit: int
    unreadable: list[Unreadable] = field(default_factory=list)

    def __call__(self, index: int) -> tuple[int, Image.Image]:
        """Return the index of the image that was read, and the image.

        Raises:
            InputError: if no readable image is found.
        """
        actual = index
        for attempt in range(ATTEMPTS):
            try:
                return actual, self.source.read(actual)
            except UnreadableImage as error:
                if self.limit == 0:
                    raise
                self.unreadable.append(Unreadable(error.name, error.reason))
            actual = derive_seed(self.key.seed, "replacement", self.key.epoch, index, attempt) % len(self.source)
        names = quote_names(name for name, _ in self.unreadable)
        raise InputError(f"{ATTEMPTS} images drawn from the training set, none readable: {names}; repair it")
