"""What takes the place of an unreadable image in training.

A replacement is a function of (seed, epoch, index) and of the files alone, so that neither the number of workers nor
where a run was resumed changes a batch. Evaluation replaces nothing: a score over other images would be another score.
"""

from dataclasses import dataclass, field

from PIL import Image

from skipless.data.folder import UnreadableImage
from skipless.data.image_source import ImageSource
from skipless.data.loading.corrupt import Unreadable, quote_names
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed
from skipless.errors import InputError

ATTEMPTS = 100  # where so many draws in a row are unreadable, it is not single images that are corrupt


@dataclass(eq=False)
class SubstitutingReader:
    """Reads the images of one batch: in the place of an unreadable one, one drawn by (seed, epoch, index).

    Attributes:
        source: gives an image for an index.
        key: of the batch.
        limit: of the training set; 0 replaces nothing.
        found: what could not be read.
    """

    source: ImageSource
    key: BatchKey
    limit: int
    unreadable: list[Unreadable] = field(default_factory=list)

    def __call__(self, index: int) -> tuple[int, Image.Image]:
        """Give the index of the image that was read, and the image.

        Raises:
            InputError: if no image is to be had.
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
