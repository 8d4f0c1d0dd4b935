"""Images within tars, each read by its place: the shuffle is over the whole set, as with folders."""

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
from skipless.errors import InputError


class _Handles:
    """Open tars of this process, the latest used ones. They are read by `pread`, which forked workers may share."""

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
        return type(self), ()  # descriptors mean nothing to a spawned worker


@dataclass(frozen=True, eq=False)
class ShardFiles:
    """Image files within tars. All arrays are flat: forked workers share them rather than copy.

    Attributes:
        root: the folder that the tars lie below.
        tars: their paths below it.
        files: names within the tars, as bytes.
        tar: which tar each is in.
        offset: of its first byte there.
        size: in bytes.
    """

    root: Path
    tars: tuple[str, ...]
    files: np.ndarray
    tar: Int64[np.ndarray, " n"]
    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]
    handles: _Handles = field(default_factory=_Handles, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def stored_in(self) -> Iterator[Path]:
        """Give the tars that hold an image."""
        return (self.root / self.tars[number] for number in np.unique(self.tar))

    def name(self, index: int) -> str:
        """Give the path of the tar, and behind it the one within."""
        return str(self.root / self.tars[self.tar[index]] / os.fsdecode(bytes(self.files[index])))

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UnreadableImage: if the bytes there are no image, or are cut off.
            InputError: if the tar cannot be read.
        """
        return decode_image(io.BytesIO(self.content(index)), self.name(index))

    def content(self, index: int) -> bytes:
        """Give the bytes of one file; raises as `read`."""
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
        """Give a part of the files."""
        at = indices.numpy()
        return replace(self, files=self.files[at], tar=self.tar[at], offset=self.offset[at], size=self.size[at])
