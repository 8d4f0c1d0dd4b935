"""ShardFiles: images in tars, read at random by offset, so that shuffling is over the full set."""

import io
import os
import resource
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from skipless.data.folder import UnreadableImage, decode_image
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError


class _Handles:
    """Cache of open tars, least recently used first. They are read by `pread`, so forked workers may share them."""

    def __init__(self) -> None:
        self.most = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self.open: OrderedDict[Path, int] = OrderedDict()

    def __getitem__(self, file: Path) -> int:
        if file in self.open:
            self.open.move_to_end(file)
        else:
            if len(self.open) >= self.most:
                os.close(self.open.popitem(last=False)[1])
            self.open[file] = os.open(file, os.O_RDONLY)
        return self.open[file]

    def __del__(self) -> None:
        for descriptor in self.open.values():
            os.close(descriptor)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()  # descriptors are not valid in a spawned worker


@dataclass(frozen=True, eq=False, repr=False)
class ShardFiles(Record):
    """Image files in tars. All arrays are flat, so that forked workers share them without copying.

    Attributes:
        root: the folder that contains the tars.
        tars: paths of the tars below the root.
        files: names of the images within the tars, as bytes.
        tar: index of the tar of each image.
        offset: offset of each image's first byte in its tar.
        size: size of each image in bytes.
        handles: open tars of this process.
    """

    root: Path
    tars: tuple[str, ...]
    files: np.ndarray
    tar: Int64[np.ndarray, " n"]
    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]
    handles: _Handles = field(default_factory=_Handles, repr=False)

    def _summary(self) -> str:
        return f"{len(self):,} images in {counted(len(self.tars), 'tar')}, {self.root}"

    def __len__(self) -> int:
        return len(self.files)

    def stored_in(self) -> Iterator[Path]:
        """Return the tars that contain images."""
        return (self.root / self.tars[number] for number in np.unique(self.tar))

    def name(self, index: int) -> str:
        """Return the path of the tar, followed by the path within it."""
        return str(self.root / self.tars[self.tar[index]] / os.fsdecode(bytes(self.files[index])))

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UnreadableImage: if the bytes are not an image, or are truncated.
            InputError: if the tar cannot be read.
        """
        return decode_image(io.BytesIO(self.content(index)), self.name(index))

    def content(self, index: int) -> bytes:
        """Return the bytes of one file; raises as `read`."""
        tar, size = self.root / self.tars[self.tar[index]], int(self.size[index])
        try:
            content = os.pread(self.handles[tar], size, int(self.offset[index]))
        except OSError as error:
            raise InputError(
                f"cannot read the shard {str(tar)!r} ({error}); see that it is there, then go on"
            ) from error
        if len(content) < size:
            raise UnreadableImage(self.name(index), f"{len(content)} of {size} bytes are there")
        return content

    def subset(self, indices: Int64[Tensor, " k"]) -> "ShardFiles":
        """Return the files at some indices."""
        at = indices.numpy()
        return replace(self, files=self.files[at], tar=self.tar[at], offset=self.offset[at], size=self.size[at])
