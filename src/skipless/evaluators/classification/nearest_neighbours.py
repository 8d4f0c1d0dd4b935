"""Weighted k-NN classification on frozen features, as in DINO's evaluation."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from skipless.display import Record
from skipless.errors import InputError

TOP5 = 5
MAX_SIMILARITIES = 2**25  # in one chunk, 128 MiB in float32, for any number of training images
Block = TypeVar("Block", bound=Hashable)


@dataclass(frozen=True)
class KnnAccuracy(Record):
    """The accuracy of a k-NN classifier.

    Attributes:
        top1: top-1 accuracy in percent.
        top5: top-5 accuracy in percent; the accuracy among the first k classes if k < 5.
        k: number of neighbours that vote.
        temperature: temperature of the votes, exp(similarity / temperature).
        n: number of test images.
        n_train: number of training images.
    """

    top1: float
    top5: float
    k: int
    temperature: float
    n: int
    n_train: int


def knn(
    train_features: Float[Tensor, "n_train dim"],
    train_labels: Int64[Tensor, " n_train"],
    test_features: Float[Tensor, "n dim"],
    test_labels: Int64[Tensor, " n"],
    *,
    k: int,
    temperature: float = 0.07,
) -> tuple[float, float]:
    """Weighted k-NN accuracy, as in DINO's evaluation (Caron et al. 2021, section 4.1).

    Each of the k training images of highest cosine similarity votes for its class with exp(similarity / temperature).
    Among equally similar training images, the first counts as nearer. Classes with equal votes, including none, are
    ranked by their number.

    Args:
        train_features: one feature vector for each image, in any floating-point dtype; half precision is converted to
            float32.
        train_labels: class indices, from 0 up.
        test_features: feature vectors of the images to classify.
        test_labels: class indices of these images.
        k: number of neighbours; the published values are 10, 20, 100 and 200.
        temperature: smaller values give the nearest neighbours more weight.

    Returns:
        Top-1 and top-5 accuracy in percent; with k < 5, the second is the accuracy among the first k classes.

    Raises:
        InputError: if there are fewer than k training images, or if a feature is not finite.

    Example:
        >>> train, labels = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> knn(train, labels, torch.tensor([[3.0, 0.2], [0.1, 1.0]]), torch.tensor([0, 1]), k=1)
        (100.0, 100.0)
    """
    result = knn_accuracies(train_features, train_labels, test_features, test_labels, ks=[k], temperature=temperature)
    return result[k].top1, result[k].top5


def knn_blocks(
    train_features: Mapping[Block, Float[Tensor, "n_train _dim"]],
    train_labels: Int64[Tensor, " n_train"],
    test_features: Mapping[Block, Float[Tensor, "n _dim"]],
    test_labels: Int64[Tensor, " n"],
    *,
    ks: Sequence[int],
    temperature: float = 0.07,
    device: torch.device | None = None,
) -> dict[Block, dict[int, KnnAccuracy]]:
    """Evaluate every block at every k. Blocks are named by the keys of the mappings.

    Args:
        train_features, train_labels, test_features, test_labels, ks, temperature: as in `knn_accuracies`.
        device: device to compute on, one block at a time; by default that of the features.
    """
    if list(train_features) != list(test_features):
        raise InputError(
            f"training features are of {list(train_features)} but test features of {list(test_features)}; "
            "give both of the same blocks in the same order"
        )
    return {
        block: knn_accuracies(
            features.to(device), train_labels, test_features[block], test_labels, ks=ks, temperature=temperature
        )
        for block, features in train_features.items()
    }


@torch.inference_mode()
def knn_accuracies(
    train_features: Float[Tensor, "n_train dim"],
    train_labels: Int64[Tensor, " n_train"],
    test_features: Float[Tensor, "n dim"],
    test_labels: Int64[Tensor, " n"],
    *,
    ks: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, KnnAccuracy]:
    """Evaluate several k at once, in one pass over the similarities; arguments, ties and errors as in `knn`."""
    _check(train_features, train_labels, test_features, test_labels, ks, temperature)
    dtype = torch.promote_types(torch.promote_types(train_features.dtype, test_features.dtype), torch.float32)
    train = F.normalize(train_features.to(dtype), dim=1)
    test = F.normalize(test_features.to(train.device, dtype), dim=1)
    labels, truth = train_labels.to(train.device), test_labels.to(train.device)
    classes = int(max(labels.max(), truth.max())) + 1
    hits = {k: torch.zeros(2, dtype=torch.int64, device=train.device) for k in ks}
    rows = max(1, MAX_SIMILARITIES // max(len(train), classes))
    for chunk, true in zip(test.split(rows), truth.split(rows), strict=True):
        similarity, neighbours = _stable_topk(chunk @ train.T, max(ks))
        # Votes are scaled so that the nearest one is 1: this changes no rank, and exp(1 / temperature) may overflow.
        votes = ((similarity - similarity[:, :1]).double() / temperature).exp()
        for k, ranks in _true_class_ranks(votes, labels[neighbours], true, classes, set(ks)):
            hits[k] += torch.stack([(ranks == 0).sum(), (ranks < min(TOP5, k)).sum()])
    results = {}
    for k in ks:
        first, fifth = (100 * hits[k].double() / len(test)).tolist()
        results[k] = KnnAccuracy(first, fifth, k, temperature, len(test), len(train))
    return results


def _stable_topk(
    similarity: Float[Tensor, "n n_train"], k: int
) -> tuple[Float[Tensor, "n {k}"], Int64[Tensor, "n {k}"]]:
    """The k largest values of each row; ties go to the first, which `torch.topk` alone does not guarantee."""
    values, order = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    if tied.any():
        order[tied] = similarity[tied].argsort(dim=1, descending=True, stable=True)[:, : order.shape[1]]
        values = similarity.gather(1, order)
    return values[:, :k], order[:, :k]


def _true_class_ranks(
    votes: Float[Tensor, "n k"],
    neighbour_labels: Int64[Tensor, "n k"],
    truth: Int64[Tensor, " n"],
    classes: int,
    ks: set[int],
) -> Iterator[tuple[int, Int64[Tensor, " n"]]]:
    """For each k in `ks`, yield the rank of the true class, from 0, after the votes of the first k neighbours."""
    images = torch.arange(len(votes), device=votes.device)
    lower_numbered = torch.arange(classes, device=votes.device) < truth[:, None]
    sums = votes.new_zeros(len(votes), classes)
    for place in range(votes.shape[1]):
        sums[images, neighbour_labels[:, place]] += votes[
            :, place
        ]  # in order of nearness: scatter_add could change the order and so the rounding
        if place + 1 in ks:
            true = sums.gather(1, truth[:, None])
            yield place + 1, ((sums > true) | ((sums == true) & lower_numbered)).sum(1)


def _check(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, ks: Sequence[int], temperature: float
) -> None:
    if not ks or min(ks) < 1 or max(ks) > len(train):
        raise InputError(
            f"k is {', '.join(map(str, ks)) or 'missing'}, but there are {len(train)} training images; "
            f"give k from 1 to {len(train)}"
        )
    if temperature <= 0:
        raise InputError(f"temperature is {temperature:g}; give a positive one, 0.07 in DINO")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(f"training features have shape {tuple(train.shape)}, test features {tuple(test.shape)}")
    for name, features, labels in (("training", train, train_labels), ("test", test, test_labels)):
        if len(features) != len(labels) or not len(features):
            raise InputError(f"{len(features)} {name} features and {len(labels)} labels; give one label a feature")
        if not features.isfinite().all():
            bad = int((~features.isfinite()).any(1).nonzero()[0, 0])
            raise InputError(f"{name} feature {bad} is not finite; look for NaN or infinity in the backbone's output")
        if labels.min() < 0:
            raise InputError(f"a {name} label is {int(labels.min())}; number the classes from 0")
