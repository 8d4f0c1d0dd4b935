"""The features of a data set, stored on disk so that the backbone runs only once.

```text
FOLDER/KEY/
├── key.json                   identity of weights, data and transform
└── b11.tokens.final/          one folder for each block and kind
    ├── 00000.npy              tokens of 32 images, one row each, prefix tokens first; memory-mapped by numpy
    └── 00000.json             checksum, patch grids, and images that could not be read; written last
```

`store_builder` writes the store, this module reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from skipless.choices import Pooling
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.features.extraction import Features, Key, Kind

StoreDtype = Literal["fp16", "fp32"]

SHARD = 32  # images in a shard, which is one forward pass and the most that an interruption loses
NUMPY_DTYPES = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
_OPEN_FILES = 256  # each needs a file descriptor; the usual limit is 1024


@dataclass(frozen=True, eq=False, repr=False)
class FeatureStore(Record):
    """Features of every image of a data set, read from disk on demand.

    Attributes:
        folder: folder of the store; its name is a hash of weights, data and transform.
        keys: the available (block, kind) pairs.
        norm: norm applied to the blocks' outputs, `final` or `none`.
        prefix: number of prefix tokens.
        class_token: whether the first prefix token is a class token.
        dim: width of the features of each key; q, k and v may be wider or narrower than tokens.
        grids: rows and columns of patches of each image; (0, 0) if the image could not be read.
        failures: for each image number that could not be read, the reason.
        nbytes: size of the files in bytes.
    """

    folder: Path
    keys: tuple[Key, ...]
    norm: str
    prefix: int
    class_token: bool
    dim: dict[Key, int]
    grids: tuple[tuple[int, int], ...]
    failures: dict[int, str]
    nbytes: int

    def _summary(self) -> str:
        lost = f", {len(self.failures)} of them unreadable" if self.failures else ""
        size = f"{counted(len(self.keys), 'feature')} of blocks, {self.nbytes / 2**20:.1f} MiB"
        return f"{counted(len(self), 'image')}{lost}, {size}, {self.folder.name}"

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def good(self) -> tuple[int, ...]:
        """Numbers of the images that could be read."""
        return tuple(index for index in range(len(self)) if index not in self.failures)

    def read(self, block: int, kind: Kind, images: Sequence[int]) -> Features:
        """Read one block's features of some images, in float32.

        Raises:
            InputError: if they are not in the store, or the images have different grids.
        """
        grid = self._grid(images)
        tokens = _stack([self._rows(block, kind, image) for image in images])
        return Features(block, kind, tokens[:, self.prefix :], tokens[:, : self.prefix], grid)

    def take(
        self, block: int, kind: Kind, images: Sequence[int], patches: np.ndarray | None = None
    ) -> Float[Tensor, "b n d"]:
        """Read patch features only, of all patches or of those at the indices `patches` (b, n) of each image."""
        self._grid(images)
        rows = [self._rows(block, kind, image)[self.prefix :] for image in images]
        if patches is not None:
            rows = [row[chosen] for row, chosen in zip(rows, patches, strict=True)]
        return _stack(rows)

    def pooled(self, block: int, kind: Kind, images: Sequence[int], how: Pooling = "class") -> Float[Tensor, "b d"]:
        """One vector for each image: the class token, or the mean of the patches. Grids may differ.

        Raises:
            InputError: if there is no class token, or an image could not be read.
        """
        if how not in get_args(Pooling) or (how == "class" and not self.class_token):
            raise InputError(
                f"how={how!r}: this model has {'a' if self.class_token else 'no'} class token; give 'mean'"
            )
        vectors = []
        for image in images:
            found = self.read(block, kind, [image])
            vectors.append(found.prefix[0, 0] if how == "class" else found.patches[0].mean(0))
        return torch.stack(vectors)

    def _grid(self, images: Sequence[int]) -> tuple[int, int]:
        grids = {self.grids[image] for image in images}
        if len(grids) != 1 or (0, 0) in grids:
            raise InputError(f"images {list(images)[:5]} have grids {sorted(grids)}: read images of one size together")
        return grids.pop()

    def _rows(self, block: int, kind: Kind, image: int) -> np.ndarray:
        if (block, kind) not in self.keys:
            raise InputError(f"no {kind} of block {block} in {str(self.folder)!r}; there is {list(self.keys)}")
        start = self._starts[image]
        return open_shard(self.folder, (block, kind), self.norm, image // SHARD)[start : start + self._count(image)]

    def _count(self, image: int) -> int:
        high, wide = self.grids[image]
        return high * wide + (self.prefix if high else 0)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """The first row of each image in its shard."""
        starts, row = [], 0
        for image in range(len(self)):
            row = row if image % SHARD else 0
            starts.append(row)
            row += self._count(image)
        return tuple(starts)


def store_bytes(images: int, tokens: int, dims: Sequence[int], dtype: StoreDtype = "fp16") -> int:
    """Bytes that the features of a store need, without the small JSON files.

    Args:
        images: number of images.
        tokens: number of tokens of an image, including prefix tokens.
        dims: width of each (block, kind).
        dtype: dtype on disk.

    Example:
        >>> f"{store_bytes(10_582, 197, [384] * 12) / 1e9:.1f} GB"  # VOC trainaug, every block of ViT-S at 224
        '19.2 GB'
    """
    return images * tokens * sum(dims) * NUMPY_DTYPES[dtype].itemsize


def array_folder(home: Path, key: Key, norm: str) -> Path:
    """The folder of one block's features of one kind."""
    return home / (f"b{key[0]:02d}.{key[1]}" + (f".{norm}" if key[1] == "tokens" else ""))


@lru_cache(maxsize=_OPEN_FILES)
def open_shard(home: Path, key: Key, norm: str, shard: int) -> np.ndarray:
    """Memory-map a shard. Call `open_shard.cache_clear()` after files were replaced."""
    path = array_folder(home, key, norm) / f"{shard:05d}.npy"
    return np.load(path, mmap_mode="r").view(np.ndarray)  # a memmap's own indexing is slower


def _stack(rows: list[np.ndarray]) -> Float[Tensor, "b n d"]:
    """Stack to one float32 tensor; torch converts float16 several times faster than numpy."""
    return torch.from_numpy(np.stack(rows)).float()
