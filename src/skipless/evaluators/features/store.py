"""A data set's features on disk, so that no backbone runs twice.

```text
FOLDER/KEY/
├── key.json                   what the features are of: weights, data, transform
└── b11.tokens.final/          one folder a block and kind
    ├── 00000.npy              32 images' tokens, prefix first, row below row: numpy maps it into memory
    └── 00000.json             its checksum, the images' grids, the images that could not be read; written last
```

`store_builder` writes it, this file reads it.
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
from skipless.errors import InputError
from skipless.evaluators.features.extraction import Features, Key, Kind

StoreDtype = Literal["fp16", "fp32"]

SHARD = 32  # images: a shard is one forward pass, and what an interruption costs
NUMPY_DTYPES = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
_OPEN_FILES = 256  # each holds a file descriptor; the usual limit is 1024


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Features of every image of a data set, read from disk as they are needed.

    Attributes:
        folder: where they lie; its name is the hash of weights, data and transform.
        keys: the (block, kind) that it has.
        norm: what the blocks' outputs went through, `final` or `none`.
        prefix: number of prefix tokens.
        class_token: whether the first of them is a class token.
        dim: their width; q, k and v may have another than tokens.
        grids: rows and columns of patches of each image; (0, 0) for one that could not be read.
        failures: why, by the image's number.
        nbytes: what its files take.
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

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def good(self) -> tuple[int, ...]:
        """The images that could be read."""
        return tuple(index for index in range(len(self)) if index not in self.failures)

    def read(self, block: int, kind: Kind, images: Sequence[int]) -> Features:
        """Read one block's features of some images, in float32.

        Raises:
            InputError: if they are not in the store, or the images' grids are not the same.
        """
        grid = self._grid(images)
        tokens = _stack([self._rows(block, kind, image) for image in images])
        return Features(block, kind, tokens[:, self.prefix :], tokens[:, : self.prefix], grid)

    def take(
        self, block: int, kind: Kind, images: Sequence[int], patches: np.ndarray | None = None
    ) -> Float[Tensor, "b n d"]:
        """Read patch features alone, of all patches or, for each image, of those numbered in `patches` (b, n)."""
        self._grid(images)
        rows = [self._rows(block, kind, image)[self.prefix :] for image in images]
        if patches is not None:
            rows = [row[chosen] for row, chosen in zip(rows, patches, strict=True)]
        return _stack(rows)

    def pooled(self, block: int, kind: Kind, images: Sequence[int], how: Pooling = "class") -> Float[Tensor, "b d"]:
        """One vector an image, whatever their grids: the class token, or the mean of the patches.

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
    """Bytes that a store needs, but for the small files beside the features.

    Args:
        images: their number.
        tokens: of one image, prefix tokens included.
        dims: the width of each (block, kind).
        dtype: of the numbers on disk.

    Example:
        >>> f"{store_bytes(10_582, 197, [384] * 12) / 1e9:.1f} GB"  # VOC trainaug, every block of ViT-S at 224
        '19.2 GB'
    """
    return images * tokens * sum(dims) * NUMPY_DTYPES[dtype].itemsize


def array_folder(home: Path, key: Key, norm: str) -> Path:
    """Where one block's features of one kind lie."""
    return home / (f"b{key[0]:02d}.{key[1]}" + (f".{norm}" if key[1] == "tokens" else ""))


@lru_cache(maxsize=_OPEN_FILES)
def open_shard(home: Path, key: Key, norm: str, shard: int) -> np.ndarray:
    """Map a shard into memory; `opened.cache_clear()` once files were replaced."""
    path = array_folder(home, key, norm) / f"{shard:05d}.npy"
    return np.load(path, mmap_mode="r").view(np.ndarray)  # a memmap's own indexing is slower


def _stack(rows: list[np.ndarray]) -> Float[Tensor, "b n d"]:
    """One tensor in float32; torch converts halves several times faster than numpy does."""
    return torch.from_numpy(np.stack(rows)).float()
