"""Inputs of dense probing: features from a store, masks from a data set, and a record of unreadable images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from skipless.data.folder import PILLOW_ERRORS
from skipless.display import Record
from skipless.errors import InputError
from skipless.evaluators.features.extraction import Kind
from skipless.evaluators.features.store import FeatureStore
from skipless.evaluators.probe.protocols import DenseProtocol
from skipless.evaluators.probe.segmentation_metrics import cell_distribution, check_labels, resize_labels


@runtime_checkable
class SegmentationDataset(Protocol):
    """A data set of pictures and segmentation masks.

    Attributes:
        classes: names of the classes; a label is a position in this list.
        ignore: label of the pixels to ignore; None if every pixel counts.
    """

    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def ignore(self) -> int | None: ...  # noqa: D102

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Image.Image, Any]:
        """Picture and label mask (h, w); raises `InputError`, or what Pillow raises, if one cannot be read."""
        ...


@dataclass(frozen=True)
class Skipped:
    """An image that was left out of a result, and the reason."""

    split: str
    index: int
    reason: str


@dataclass(eq=False, repr=False)
class DenseSet(Record):
    """A data set with its features.

    Attributes:
        store: the features, all on the same grid.
        data: the masks.
        split: name of the split in messages.
        skipped: for each image number that could not be used so far, the reason.
    """

    store: FeatureStore
    data: SegmentationDataset
    split: str
    skipped: dict[int, str] = field(default_factory=dict)

    def _summary(self) -> str:
        lost = f", {len(self.skipped)} of them unusable" if self.skipped else ""
        return f"{self.split}, {len(self.data):,} images with masks{lost}; {self.store._summary()}"

    def __post_init__(self) -> None:
        if len(self.store) != len(self.data):
            raise InputError(f"{self.split}: features of {len(self.store)} images, masks of {len(self.data)}")
        self.skipped |= self.store.failures
        if len({self.store.grids[index] for index in self.store.good}) != 1:
            raise InputError(f"{self.split}: the images' grids differ; give the transform a size")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.store.grids[self.store.good[0]]

    @property
    def usable(self) -> np.ndarray:
        """Numbers of the images that have not been skipped so far."""
        return np.array([index for index in range(len(self.data)) if index not in self.skipped])

    def name(self, index: int) -> str:
        """The image's id if the data set has ids, otherwise its number."""
        items = getattr(self.data, "items", None)
        return str(index) if items is None else items[index].id

    def mask(self, index: int) -> Int64[Tensor, "h w"] | None:
        """Read a mask. If it cannot be read or has unknown labels, record it in `skipped` and return None.

        Raises:
            InputError: if more than half of the images cannot be used, which suggests a wrong data set.
        """
        try:
            load_mask = getattr(self.data, "load_mask", None)  # avoids decoding the picture again
            loaded = self.data.load(index)[1] if load_mask is None else load_mask(index)
            labels = torch.from_numpy(np.asarray(loaded).astype(np.int64))
            check_labels(labels, len(self.data.classes), self.data.ignore)
        except (InputError, *PILLOW_ERRORS) as error:
            self.skipped[index] = str(error) or type(error).__name__
            if len(self.skipped) > len(self.data) / 2:
                raise InputError(
                    f"{self.split}: {len(self.skipped)} of {len(self.data)} images cannot be used; the last, number "
                    f"{index}: {error}"
                ) from error
            return None
        return labels

    def features(
        self, blocks: Sequence[int], kind: Kind, images: Sequence[int], patches: np.ndarray | None = None
    ) -> Float[Tensor, "b n d"]:
        """Patch features; those of several blocks are concatenated."""
        return torch.cat([self.store.take(block, kind, images, patches) for block in blocks], dim=-1)


@dataclass(eq=False)
class CellTargets:
    """Masks of some images at reduced resolution, so that they fit in memory: a few pixels per cell.

    Attributes:
        images: numbers of the images.
        labels: (images, rows, columns) labels of the sampled pixels, one or two bytes each.
        cells: rows and columns of cells.
        classes: number of classes.
        ignore: label of the pixels to ignore.
    """

    images: np.ndarray
    labels: Tensor
    cells: tuple[int, int]
    classes: int
    ignore: int | None

    @classmethod
    def read(cls, data: DenseSet, images: np.ndarray, cells: tuple[int, int], pixels: int) -> "CellTargets":
        """Read masks and leave out those that cannot be used.

        Raises:
            InputError: if none is left.
        """
        classes, ignore = len(data.data.classes), data.data.ignore
        narrow = torch.uint8 if classes <= 256 and (ignore is None or 0 <= ignore < 256) else torch.int16
        size = (cells[0] * pixels, cells[1] * pixels)
        read: dict[int, Tensor] = {}
        for index in images.tolist():
            mask = data.mask(index)
            if mask is not None:
                read[index] = resize_labels(mask, size).to(narrow)
        if not read:
            raise InputError(
                f"{data.split}: there is no image to use; {next(iter(data.skipped.values()), 'it is empty')}"
            )
        return cls(np.array(list(read)), torch.stack(list(read.values())), cells, classes, ignore)

    def class_shares(self, positions: np.ndarray, device: torch.device) -> Float[Tensor, "b n c"]:
        """Class distribution in every cell of some images, given by their positions in `images`."""
        labels = self.labels[torch.from_numpy(positions)].to(device).long()
        return cell_distribution(labels, self.cells, self.classes, self.ignore)


def loss_grid(protocol: DenseProtocol, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the grid at which the loss is computed."""
    return grid if protocol.loss_size is None else (protocol.loss_size, protocol.loss_size)
