"""Confusion matrices of linear heads on a data set, at the size of the masks or of the patches."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from skipless.evaluators.features.extraction import Kind
from skipless.evaluators.probe.dense_set import CellTargets, DenseSet
from skipless.evaluators.probe.segmentation_metrics import confusion_rows, count_confusions, predict_pixels

BlockSet = tuple[int, ...]
# For each set of blocks, weight and bias of the heads of all learning rates.
LinearMaps = dict[BlockSet, tuple[Float[Tensor, "d c l"], Float[Tensor, "c l"]]]

_SELECTION_PIXELS = 8  # sampled pixels a side in each patch, if rates are compared on patches


@dataclass(eq=False)
class BatchReader:
    """Reads the features of each block of a batch once, for all sets that contain it."""

    data: DenseSet
    kind: Kind
    images: np.ndarray
    patches: np.ndarray | None
    like: Tensor

    def __post_init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def __call__(self, blocks: BlockSet) -> Float[Tensor, "b n d"]:
        """The concatenated features of several blocks."""
        for block in blocks:
            if block not in self.seen:
                found = self.data.features((block,), self.kind, self.images.tolist(), self.patches)
                self.seen[block] = found.to(self.like)
        return torch.cat([self.seen[block] for block in blocks], dim=-1)


def pixel_confusions(
    maps: LinearMaps, data: DenseSet, images: np.ndarray, kind: Kind
) -> tuple[dict[BlockSet, Int64[Tensor, "l c c"]], int]:
    """Confusion matrices of linear heads at the size of each mask, and the number of images counted."""
    classes, counted = len(data.data.classes), 0
    total = {
        blocks: torch.zeros(w.shape[-1], classes, classes, dtype=torch.int64, device=w.device)
        for blocks, (w, _) in maps.items()
    }
    for image in images.tolist():
        mask = data.mask(image)
        if mask is None:
            continue
        counted += 1
        size = (mask.shape[0], mask.shape[1])
        read: BatchReader | None = None
        rows = confusion_rows(mask, classes, data.data.ignore)
        for blocks, (weights, biases) in maps.items():
            read = read or BatchReader(data, kind, np.array([image]), None, weights)
            logits = (read(blocks)[0] @ weights.flatten(1) + biases.flatten()).view(-1, *biases.shape)
            rows = rows.to(logits.device)
            for rate in range(biases.shape[1]):
                pixels = predict_pixels(logits[..., rate], data.grid, size)
                total[blocks][rate] += count_confusions(rows, pixels, classes)
    return {blocks: value.cpu() for blocks, value in total.items()}, counted


def patch_confusions(
    maps: LinearMaps, data: DenseSet, images: np.ndarray, kind: Kind
) -> tuple[dict[BlockSet, Int64[Tensor, "l c c"]], int]:
    """Confusion matrices with each patch's prediction for all of its pixels, of which a square is sampled."""
    targets = CellTargets.read(data, images, data.grid, _SELECTION_PIXELS)
    classes = targets.classes
    total = {blocks: torch.zeros(w.shape[-1], classes, classes, device=w.device) for blocks, (w, _) in maps.items()}
    for positions in np.array_split(np.arange(len(targets.images)), -(-len(targets.images) // 16)):
        read: BatchReader | None = None
        for blocks, (weights, biases) in maps.items():
            read = read or BatchReader(data, kind, targets.images[positions], None, weights)
            class_shares = targets.class_shares(positions, weights.device).flatten(0, 1)
            logits = read(blocks).flatten(0, 1) @ weights.flatten(1) + biases.flatten()
            found = logits.view(len(class_shares), classes, -1).argmax(1)
            for rate in range(found.shape[1]):
                total[blocks][rate] += class_shares.mT @ one_hot(found[:, rate], classes).to(class_shares)
    pixels = _SELECTION_PIXELS**2
    return {blocks: (value * pixels).round().long().cpu() for blocks, value in total.items()}, len(targets.images)
