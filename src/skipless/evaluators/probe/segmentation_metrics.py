"""Segmentation scores from a confusion matrix, and resampling between patches and pixels."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from skipless.display import Record, Table
from skipless.display.axes import level, name_ticks, ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP_ROWS = 32  # rows of pixels in a chunk


@dataclass(frozen=True, repr=False)
class SegmentationScores(Record):
    """Segmentation scores in percent.

    Attributes:
        miou: mean IoU over the classes that occur in ground truth or prediction; None if none does.
        iou: intersection over union of each class; None for a class that occurs in neither.
        pixel_accuracy: percentage of the counted pixels that are predicted correctly; None if no pixel was counted.
        classes_counted: number of classes in the mean.
        pixels: number of counted pixels, without ignored ones.
    """

    miou: float | None
    iou: tuple[float | None, ...]
    pixel_accuracy: float | None
    classes_counted: int
    pixels: int

    def _summary(self) -> str:
        miou, accuracy = ("none" if value is None else f"{value:.2f} %" for value in (self.miou, self.pixel_accuracy))
        return f"mIoU {miou} of {self.classes_counted} classes, pixel accuracy {accuracy}, {self.pixels:,} pixels"

    def tables(self) -> tuple[Table, ...]:
        """A row for each class that occurs."""
        rows = [(str(i), f"{iou:.2f}") for i, iou in enumerate(self.iou) if iou is not None]
        return (Table(("class", "IoU, %"), rows, self._summary(), align="lr"),)

    def _draw(self, axes: "Axes") -> None:
        known = {i: iou for i, iou in enumerate(self.iou) if iou is not None}
        axes.bar(list(known), list(known.values()), color=COLOURS["init"])
        if self.miou is not None:
            level(axes, self.miou, "mIoU")
        name_ticks(axes, [str(i) for i in range(len(self.iou))])
        axes.set_xlabel("class", loc="right", labelpad=2)
        axes.set_ylabel("IoU, %")
        ruled(axes)


def confusion_matrix(
    prediction: Int64[Tensor, "*shape"], truth: Int64[Tensor, "*shape"], classes: int, ignore: int | None
) -> Int64[Tensor, "c c"]:
    """Count pixels by true class (row) and predicted class (column), without ignored pixels.

    Raises:
        InputError: if a label is neither a class nor ignored.

    Example:
        >>> truth = torch.tensor([0, 0, 1, 255])
        >>> confusion_matrix(torch.tensor([0, 1, 1, 0]), truth, classes=2, ignore=255).tolist()
        [[1, 1], [0, 1]]
    """
    check_labels(truth, classes, ignore)
    return count_confusions(confusion_rows(truth, classes, ignore), prediction, classes)


def confusion_rows(truth: Int64[Tensor, "*shape"], classes: int, ignore: int | None) -> Int64[Tensor, " pixels"]:
    """Offset of each pixel's row in the flattened confusion matrix; ignored pixels get an offset behind its end.

    It is computed once for a mask and used for every prediction. The labels must have been checked.
    """
    rows = truth.flatten() * classes
    return rows if ignore is None else rows.masked_fill_(truth.flatten() == ignore, classes * classes)


def count_confusions(
    rows: Int64[Tensor, " pixels"], prediction: Int64[Tensor, "*shape"], classes: int
) -> Int64[Tensor, "c c"]:
    """The confusion matrix of a prediction, given `confusion_rows` of the mask."""
    counts = torch.bincount(rows + prediction.flatten(), minlength=classes * (classes + 1))
    return counts[: classes * classes].view(classes, classes)


def segmentation_scores(confusion: Int64[Tensor, "c c"]) -> SegmentationScores:
    """Scores from the confusion matrix of a data set, which is the sum of those of its images.

    A class that occurs neither in ground truth nor in prediction has no IoU and is left out of the mean. A class that
    is predicted but never true has an IoU of 0.

    Example:
        >>> segmentation_scores(torch.tensor([[1, 1, 0], [0, 3, 0], [0, 0, 0]])).iou
        (50.0, 75.0, None)
    """
    right, truth, prediction = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = truth + prediction - right
    pixels = int(confusion.sum())
    iou = [100 * r / u if u else None for r, u in zip(right.tolist(), union.tolist(), strict=True)]
    counted = [value for value in iou if value is not None]
    return SegmentationScores(
        miou=sum(counted) / len(counted) if counted else None,
        iou=tuple(iou),
        pixel_accuracy=100 * int(right.sum()) / pixels if pixels else None,
        classes_counted=len(counted),
        pixels=pixels,
    )


def check_labels(labels: Int64[Tensor, "*shape"], classes: int, ignore: int | None) -> None:
    """Check that every label is a class or ignored.

    Raises:
        InputError: that names the first wrong label.
    """
    wrong = (labels < 0) | (labels >= classes)
    if ignore is not None:
        wrong &= labels != ignore
    if wrong.any():
        ignored = "" if ignore is None else f" or {ignore}, which is ignored"
        raise InputError(
            f"label {int(labels[wrong][0])} is none of the classes 0 to {classes - 1}{ignored}: the masks do not match "
            "the list of classes"
        )


def resize_labels(labels: Int64[Tensor, "h w"], size: tuple[int, int]) -> Int64[Tensor, "height width"]:
    """Resize a mask by nearest neighbour: each new pixel takes the label at its centre."""
    high, wide = labels.shape
    rows = torch.from_numpy(((np.arange(size[0]) + 0.5) * high / size[0]).astype(np.int64))
    columns = torch.from_numpy(((np.arange(size[1]) + 0.5) * wide / size[1]).astype(np.int64))
    return labels[rows.to(labels.device)][:, columns.to(labels.device)]


def cell_distribution(
    labels: Int64[Tensor, "b h w"], grid: tuple[int, int], classes: int, ignore: int | None
) -> Float[Tensor, "b n c"]:
    """The class distribution among the pixels of each cell of a grid that divides the mask.

    The values of a cell sum to 1 minus the fraction of ignored pixels.
    """
    (count, high, wide), (rows, columns) = labels.shape, grid
    split = labels.view(count, rows, high // rows, columns, wide // columns).transpose(2, 3)
    pixels = split.reshape(count, rows * columns, -1)
    # Ignored pixels are counted in an extra class, which is then dropped.
    pixels = pixels if ignore is None else pixels.masked_fill(pixels == ignore, classes)
    class_shares = torch.zeros(count, rows * columns, classes + 1, device=labels.device)
    one = torch.full((), 1 / pixels.shape[-1], device=labels.device).expand(pixels.shape)
    return class_shares.scatter_add_(2, pixels, one)[..., :classes]


def resample(
    values: Float[Tensor, "b n k"], grid: tuple[int, int], size: tuple[int, int], *, transpose: bool = False
) -> Float[Tensor, "b m k"]:
    """Bilinear interpolation from a grid of cells to pixels, as `interpolate(align_corners=False)` does.

    It is computed as two matrix products, which is several times faster with channels last. The gradient is the
    transposed map.

    Args:
        values: values on the grid in row-major order; with `transpose`, values on the pixels.
        grid: rows and columns of cells.
        size: rows and columns of pixels.
        transpose: apply the transposed map, from pixels to grid.
    """
    down, across = (_bilinear_matrix(g, s).to(values) for g, s in zip(grid, size, strict=True))
    if transpose:
        down, across, grid = down.mT, across.mT, size
    count, _, width = values.shape
    rows = down @ values.reshape(count, grid[0], grid[1] * width)
    both = across @ rows.view(count * down.shape[0], grid[1], width)
    return both.view(count, -1, width)


def predict_pixels(logits: Float[Tensor, "n c"], grid: tuple[int, int], size: tuple[int, int]) -> Int64[Tensor, "h w"]:
    """The class with the largest logit at every pixel, after bilinear interpolation from a grid of cells."""
    down, across = (_bilinear_matrix(g, s).to(logits) for g, s in zip(grid, size, strict=True))
    rows = logits.mT.reshape(-1, *grid) @ across.mT
    # Chunks of a few rows stay in cache. `max` is several times faster than `argmax` here.
    return torch.cat([(strip @ rows).max(0).indices for strip in down.split(_STRIP_ROWS)])


@lru_cache(maxsize=1024)
def _bilinear_matrix(source: int, target: int) -> Float[Tensor, "t s"]:
    """The interpolation matrix of one dimension."""
    eye = torch.eye(source, dtype=torch.float64)[:, None]
    return interpolate(eye, size=target, mode="linear", align_corners=False)[:, 0].mT.contiguous()
