"""What is asked of a place where images are stored: a folder's files, or shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from PIL import Image
from torch import Tensor


@runtime_checkable
class ImageSource(Protocol):
    """Images by their index."""

    @property
    def root(self) -> Path:
        """The folder that they lie below."""
        ...

    @property
    def files(self) -> np.ndarray:
        """Their names there, as bytes."""
        ...

    def __len__(self) -> int:
        """Give the number of images."""
        ...

    def stored_in(self) -> Iterator[Path]:
        """Give the files on the disk that hold them: images, or tars."""
        ...

    def name(self, index: int, /) -> str:
        """Name one image for the user."""
        ...

    def read(self, index: int, /) -> Image.Image:
        """Decode one image to RGB; raises `UnreadableImage` if that is its fault, `InputError` if it is not."""
        ...

    def subset(self, indices: Int64[Tensor, " k"], /) -> "ImageSource":
        """Give a part of the images."""
        ...
