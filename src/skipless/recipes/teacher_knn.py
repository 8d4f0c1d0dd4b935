"""k-NN of every block while a teacher is made: the one evaluation that is quick enough to follow a pretraining by."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from skipless.choices import Pooling
from skipless.data import ImageData
from skipless.data.loading.loader import BatchedDataset, BatchKey
from skipless.evaluators.classification.nearest_neighbours import knn_blocks
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.recipes.neighbours_config import NeighboursConfig


def teacher_neighbours(
    data: ImageData, config: NeighboursConfig, pooling: Pooling = "class"
) -> Callable[[nn.Module], dict[str, float]]:
    """An evaluation for `fit`: weighted k-NN on the class token after every block, finally normed.

    Args:
        data: labelled images; the training images must not be augmented.
        config: how many of them.
        pooling: `mean` takes the mean of the patch tokens instead.

    Returns:
        A function of a backbone that gives top-1 in per cent: `knn` of the last block, `knn_best` of the best one,
        `knn_best_block` which that is (from 0), and `knn_block_I` of each.
    """

    def evaluate(model: nn.Module) -> dict[str, float]:
        train, train_labels = _pooled(model, data.train, config.train, config.batch_size, pooling)
        val, val_labels = _pooled(model, data.val, config.val, config.batch_size, pooling)
        k = min(config.k, len(train_labels))
        found = knn_blocks(train, train_labels, val, val_labels, ks=[k])
        top1 = {block: accuracies[k].top1 for block, accuracies in found.items()}
        best = max(top1, key=lambda block: top1[block])
        blocks = {f"knn_block_{block}": value for block, value in top1.items()}
        return {"knn": top1[max(top1)], "knn_best": top1[best], "knn_best_block": float(best), **blocks}

    return evaluate


def _pooled(
    model: nn.Module, dataset: BatchedDataset, most: int, batch_size: int, pooling: Pooling
) -> tuple[dict[int, Float[Tensor, "n d"]], Int64[Tensor, " n"]]:
    """The first prefix token of each image after each block; the mean over patches where there is none, or if asked."""
    count = min(most, len(dataset))
    chosen = torch.arange(count) * len(dataset) // count
    found: dict[int, list[Tensor]] = {}
    labels: list[Tensor] = []
    for indices in chosen.split(batch_size):
        images, of_batch = dataset.__getitems__(BatchKey(0, 0, indices))
        labels.append(of_batch)
        for (block, _), value in features(model, images, FeatureConfig(), batch_size=batch_size).items():
            token = value.prefix[:, 0] if value.prefix.shape[1] and pooling == "class" else value.patches.mean(1)
            found.setdefault(block, []).append(token)
    return {block: torch.cat(tokens) for block, tokens in found.items()}, torch.cat(labels)
