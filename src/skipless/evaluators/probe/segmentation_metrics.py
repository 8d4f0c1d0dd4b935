"""Segmentation scores from one confusion matrix, and the resampling between patches and pixels."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from skipless.errors import InputError

_STRIP_ROWS = 32  # rows of pixels


@dataclass(frozen=True)
class SegmentationScores:
    """What a confusion matrix says, in percent.

    Attributes:
        miou: mean of the classes' IoU, over the classes that occur in truth or prediction; None if none does.
        iou: intersection over union of each class; None for one that occurs in neither.
        pixel_accuracy: share of the counted pixels that are right; None if there is none.
        classes_counted: how many classes the mean is over.
        pixels: how many pixels were counted: those whose label is to be ignored are not.
    """

    miou: float | None
    iou: tuple[float | None, ...]
    pixel_accuracy: float | None
    classes_counted: int
    pixels: int


def confusion_matrix(
    prediction: Int64[Tensor, "*shape"], truth: Int64[Tensor, "*shape"], classes: int, ignore: int | None
) -> Int64[Tensor, "c c"]:
    """Count pixels by true class (row) and predicted class (column), without those that are to be ignored.

    Raises:
        InputError: if a label that is not to be ignored is no class.

    Example:
        >>> truth = torch.tensor([0, 0, 1, 255])
        >>> confusion_matrix(torch.tensor([0, 1, 1, 0]), truth, classes=2, ignore=255).tolist()
        [[1, 1], [0, 1]]
    """
    check_labels(truth, classes, ignore)
    return count_confusions(confusion_rows(truth, classes, ignore), prediction, classes)


def confusion_rows(truth: Int64[Tensor, "*shape"], classes: int, ignore: int | None) -> Int64[Tensor, " pixels"]:
    """Where each pixel's row begins in a flattened confusion matrix; behind its end for those that are to be ignored.

    Made once a mask, it serves every prediction for it. The labels must have been checked.
    """
    rows = truth.flatten() * classes
    return rows if ignore is None else rows.masked_fill_(truth.flatten() == ignore, classes * classes)


def count_confusions(
    rows: Int64[Tensor, " pixels"], prediction: Int64[Tensor, "*shape"], classes: int
) -> Int64[Tensor, "c c"]:
    """The confusion matrix of a prediction for the mask that `confusion_rows` was made of."""
    counts = torch.bincount(rows + prediction.flatten(), minlength=classes * (classes + 1))
    return counts[: classes * classes].view(classes, classes)


def segmentation_scores(confusion: Int64[Tensor, "c c"]) -> SegmentationScores:
    """Score a data set's confusion matrix; sum those of its images first.

    A class that occurs neither in truth nor in prediction has no IoU and is left out of the mean. One that is predicted
    but never true counts with 0.

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
    """Refuse labels that are neither a class nor to be ignored.

    Raises:
        InputError: that names the worst one.
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
    """Resize a mask by the nearest pixel: the one that holds the new pixel's centre."""
    high, wide = labels.shape
    rows = torch.from_numpy(((np.arange(size[0]) + 0.5) * high / size[0]).astype(np.int64))
    columns = torch.from_numpy(((np.arange(size[1]) + 0.5) * wide / size[1]).astype(np.int64))
    return labels[rows.to(labels.device)][:, columns.to(labels.device)]


def cell_distribution(
    labels: Int64[Tensor, "b h w"], grid: tuple[int, int], classes: int, ignore: int | None
) -> Float[Tensor, "b n c"]:
    """The share of each class among the pixels of each cell of a grid that divides the mask; ignored ones have none.

    The shares of a cell sum to 1 minus the share of what is ignored.
    """
    (count, high, wide), (rows, columns) = labels.shape, grid
    split = labels.view(count, rows, high // rows, columns, wide // columns).transpose(2, 3)
    pixels = split.reshape(count, rows * columns, -1)
    # What is ignored goes to one class more, which is then cut off.
    pixels = pixels if ignore is None else pixels.masked_fill(pixels == ignore, classes)
    class_shares = torch.zeros(count, rows * columns, classes + 1, device=labels.device)
    one = torch.full((), 1 / pixels.shape[-1], device=labels.device).expand(pixels.shape)
    return class_shares.scatter_add_(2, pixels, one)[..., :classes]


def resample(
    values: Float[Tensor, "b n k"], grid: tuple[int, int], size: tuple[int, int], *, transpose: bool = False
) -> Float[Tensor, "b m k"]:
    """Bilinear interpolation from a grid of cells to pixels, as `interpolate(align_corners=False)` does.

    As two matrix products: several times faster with the channels last, and its transpose is the gradient.

    Args:
        values: on the grid, row by row; with `transpose`, on the pixels.
        grid: rows and columns of cells.
        size: rows and columns of pixels.
        transpose: apply the transposed map, pixels to grid.
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
    # A few rows of pixels at a time stay in the cache; `max` is several times faster than `argmax` here.
    return torch.cat([(strip @ rows).max(0).indices for strip in down.split(_STRIP_ROWS)])


@lru_cache(maxsize=1024)
def _bilinear_matrix(source: int, target: int) -> Float[Tensor, "t s"]:
    """The matrix of one dimension's interpolation."""
    eye = torch.eye(source, dtype=torch.float64)[:, None]
    return interpolate(eye, size=target, mode="linear", align_corners=False)[:, 0].mT.contiguous()
