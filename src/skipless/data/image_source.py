"""ImageSource: the interface of stored images, the files of a folder or shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from PIL import Image
from torch import Tensor


@runtime_checkable
class ImageSource(Protocol):
    """Stored images, read by their index."""

    @property
    def root(self) -> Path:
        """The folder that contains the images."""
        ...

    @property
    def files(self) -> np.ndarray:
        """Names of the images below the root, as bytes."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def stored_in(self) -> Iterator[Path]:
        """Return the files on the disk that hold the images: image files, or tars."""
        ...

    def name(self, index: int, /) -> str:
        """Return the name of one image, for messages."""
        ...

    def read(self, index: int, /) -> Image.Image:
        """Decode one image to RGB; raises `UnreadableImage` if it is damaged, `InputError` if the disk fails."""
        ...

    def subset(self, indices: Int64[Tensor, " k"], /) -> "ImageSource":
        """Return the images at some indices."""
        ...
