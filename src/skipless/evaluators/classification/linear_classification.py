"""Linear probing for classification, on class tokens or mean patches: all blocks and learning rates at once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from skipless.display import Record, Table
from skipless.display.axes import lines_by_name
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.probe.heads import HeadOptimizer, LinearHeads, train_step_

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP5_CLASSES = 5  # with fewer classes, top-5 is always 100 %
_DINO_OPTIMIZER = HeadOptimizer((1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0), "sgd", schedule="cosine")
_CHUNK_ROWS = 4096  # images in one chunk when heads are scored


@dataclass(frozen=True)
class ClassificationProtocol:
    """How a linear classifier is trained.

    The default follows DINO's linear evaluation: SGD with momentum 0.9, cosine decay to 0, 100 epochs, no weight decay.
    It differs in two points. It sweeps a grid of learning rates. And features are computed once, so there are no random
    crops and flips.

    Attributes:
        optimizer: optimizer of the heads, with the grid of learning rates.
        batch_size: number of images in a batch.
        epochs: number of passes over the training images.
    """

    optimizer: HeadOptimizer = _DINO_OPTIMIZER
    batch_size: int = 1024
    epochs: int = 100

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs < 1:
            raise InputError(f"batch_size={self.batch_size}, epochs={self.epochs}: give at least 1")


@dataclass(frozen=True)
class ClassificationRate(Record):
    """The head of one learning rate. `chosen_top1` is in percent, on the images that the rate is chosen on.

    It is None if the head diverged.
    """

    learning_rate: float
    chosen_top1: float | None
    finite: bool


@dataclass(frozen=True, repr=False)
class ClassificationScore(Record):
    """The score of one block's chosen head.

    Attributes:
        block: name of the block, as given.
        learning_rate: the chosen learning rate; None if every head diverged.
        top1: top-1 accuracy on the test images, in percent.
        top5: top-5 accuracy, in percent; None with fewer than five classes.
        rates: the heads of all learning rates.
    """

    block: int
    learning_rate: float | None
    top1: float | None
    top5: float | None
    rates: tuple[ClassificationRate, ...]

    def _summary(self) -> str:
        if self.top1 is None:
            return f"block {self.block}, every head of {len(self.rates)} diverged"
        return f"block {self.block}, top-1 {self.top1:.1f} %, learning rate {self.learning_rate:g} of {len(self.rates)}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each learning rate."""
        rows = [(f"{rate.learning_rate:g}", _percent(rate.chosen_top1)) for rate in self.rates]
        return (Table(("learning rate", "top-1, %"), rows, f"block {self.block}, where rates are chosen", align="rr"),)

    def _draw(self, axes: "Axes") -> None:
        rates = [f"{rate.learning_rate:g}" for rate in self.rates]
        lines_by_name(axes, rates, {"": [rate.chosen_top1 for rate in self.rates]}, "top-1, %", "learning rate")


@dataclass(frozen=True, repr=False)
class ClassificationResult(Record):
    """The scores of a linear classification probe, with everything that they depend on.

    Attributes:
        protocol: how the heads were trained.
        select: the images that rates were chosen on: `val`, the test images, or `holdout`, held-out training images.
        blocks: the score of each block.
        classes: number of classes.
        train: number of images that heads were trained on.
        chosen_on: number of images that rates were chosen on.
        test: number of test images.
        steps: number of training steps.
        seed: seed of initial weights, order and held-out images.
    """

    protocol: ClassificationProtocol
    select: str
    blocks: tuple[ClassificationScore, ...]
    classes: int
    train: int
    chosen_on: int
    test: int
    steps: int
    seed: int

    def _summary(self) -> str:
        best = max(self.blocks, key=lambda one: one.top1 or 0.0)
        found = f"best top-1 {_percent(best.top1)} % at block {best.block}"
        images = f"n = {self.test}, {self.train} training images"
        return f"{found}, {counted(len(self.blocks), 'block')}, {images}, seed {self.seed}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each block."""
        rows = [
            (str(one.block), _percent(one.top1), _percent(one.top5), f"{one.learning_rate or 0:g}")
            for one in self.blocks
        ]
        chosen = "test" if self.select == "val" else "held-out training"
        caption = (
            f"{self.train} training images, n = {self.test}, seed {self.seed}, "
            f"learning rates chosen on {self.chosen_on} {chosen} images"
        )
        return (Table(("block", "top-1, %", "top-5, %", "learning rate"), rows, caption, align="lrrr"),)

    def _draw(self, axes: "Axes") -> None:
        names = [str(one.block) for one in self.blocks]
        lines_by_name(axes, names, {"linear": [one.top1 for one in self.blocks]}, "top-1, %")

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def linear_classification_probe(
    train: Mapping[int, Float[Tensor, "n d"]],
    train_labels: Int64[Tensor, " n"],
    test: Mapping[int, Float[Tensor, "m e"]],
    test_labels: Int64[Tensor, " m"],
    *,
    classes: int,
    protocol: ClassificationProtocol | None = None,
    select: Literal["val", "holdout"] = "val",
    holdout: float = 0.1,
    seed: int = 0,
    device: torch.device | None = None,
) -> ClassificationResult:
    """Train linear classifiers for every block and learning rate on the same batches, choose rates and score them.

    Args:
        train: for each block, one feature vector for each training image (`FeatureStore.pooled`).
        train_labels: class indices of the training images.
        test: the feature vectors of the test images.
        test_labels: class indices of the test images.
        classes: number of classes.
        protocol: how the heads are trained.
        select: the images that rates are chosen on: `"val"`, the test images, as papers do; or `"holdout"`, training
            images that are held out.
        holdout: fraction of the training images to hold out, with `select="holdout"`.
        seed: seed of initial weights, order and held-out images.
        device: device to train on, batch by batch; by default that of the vectors.

    Raises:
        InputError: if features and labels do not fit.

    Example:
        >>> labels = torch.arange(60) % 3
        >>> blocks = {0: torch.eye(3)[labels], 1: torch.ones(60, 3)}
        >>> result = linear_classification_probe(blocks, labels, blocks, labels, classes=3)
        >>> [round(score.top1, 1) for score in result.blocks]
        [100.0, 33.3]
    """
    protocol = ClassificationProtocol() if protocol is None else protocol
    _check(train, train_labels, test, test_labels, classes, select, holdout)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train_labels), generator=generator)
    held_out_count = max(1, round(holdout * len(order))) if select == "holdout" else 0
    if held_out_count >= len(order):
        raise InputError(f"holdout={holdout} leaves none of {len(order)} training images")
    held_out, fitted = order[:held_out_count], order[held_out_count:]
    heads = {
        block: LinearHeads(x.shape[1], classes, protocol.optimizer, seed=seed, device=device or x.device, dtype=x.dtype)
        for block, x in train.items()
    }
    steps = _train(heads, train, train_labels, fitted, protocol, generator)
    scores = []
    for block, block_heads in heads.items():
        selection = (
            (train[block][held_out], train_labels[held_out]) if select == "holdout" else (test[block], test_labels)
        )
        scores.append(_score(block, block_heads, selection, (test[block], test_labels)))
    chosen_on = held_out_count or len(test_labels)
    return ClassificationResult(
        protocol, select, tuple(scores), classes, len(fitted), chosen_on, len(test_labels), steps, seed
    )


def _train(
    heads: Mapping[int, LinearHeads],
    train: Mapping[int, Float[Tensor, "n d"]],
    labels: Int64[Tensor, " n"],
    fitted: Int64[Tensor, " f"],
    protocol: ClassificationProtocol,
    generator: torch.Generator,
) -> int:
    """Train every block's heads on the same batches; give the number of steps."""
    steps = protocol.epochs * -(-len(fitted) // protocol.batch_size)
    step = 0
    for _ in range(protocol.epochs):
        for batch in fitted[torch.randperm(len(fitted), generator=generator)].split(protocol.batch_size):
            for block, x in train.items():
                bias = heads[block].parameters["bias"]
                rows = x[batch.to(x.device), None].to(bias.device)
                target = one_hot(labels[batch.to(labels.device)], len(bias)).to(rows)
                train_step_(heads[block], rows, target[:, None], step, steps)
            step += 1
    return steps


def _score(
    block: int, heads: LinearHeads, selection: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> ClassificationScore:
    found = _accuracies(heads, *selection)[0]
    rates = tuple(
        ClassificationRate(rate, top1 if finite else None, finite)
        for rate, top1, finite in zip(heads.optimizer.learning_rates, found, heads.finite, strict=True)
    )
    scored = [(-r.chosen_top1, r.learning_rate, i) for i, r in enumerate(rates) if r.chosen_top1 is not None]
    if not scored:
        return ClassificationScore(block, None, None, None, rates)
    best = min(scored)[2]
    top1, top5 = _accuracies(heads, *test)
    classes = heads.parameters["bias"].shape[0]
    return ClassificationScore(
        block, rates[best].learning_rate, top1[best], top5[best] if classes >= _TOP5_CLASSES else None, rates
    )


def _accuracies(heads: LinearHeads, x: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Top-1 and top-5 accuracy of every head, in percent."""
    device = heads.parameters["bias"].device
    first = fifth = torch.zeros(len(heads.optimizer.learning_rates), device=device, dtype=torch.float64)
    for part, truth in zip(x.split(_CHUNK_ROWS), labels.split(_CHUNK_ROWS), strict=True):
        logits = heads.logits(heads.normalise(part.to(device), training=False))
        guesses = logits.topk(min(_TOP5_CLASSES, logits.shape[1]), dim=1).indices
        right = guesses == truth.to(device)[:, None, None]
        first, fifth = first + right[:, 0].sum(0), fifth + right.any(1).sum(0)
    return (100 * first / len(labels)).tolist(), (100 * fifth / len(labels)).tolist()


def _check(
    train: Mapping[int, Tensor],
    train_labels: Tensor,
    test: Mapping[int, Tensor],
    test_labels: Tensor,
    classes: int,
    select: str,
    holdout: float,
) -> None:
    if not train or set(train) != set(test):
        raise InputError(f"training features of blocks {sorted(train)}, test features of blocks {sorted(test)}")
    if select not in ("val", "holdout") or not 0 < holdout < 1:
        raise InputError(f"select={select!r}, holdout={holdout}: choose from val, holdout; a share between 0 and 1")
    for name, features, labels in (("training", train, train_labels), ("test", test, test_labels)):
        for block, x in features.items():
            if len(x) != len(labels) or not len(x):
                raise InputError(f"{len(x)} {name} features of block {block}, {len(labels)} labels")
            if not x.isfinite().all():
                raise InputError(f"{name} features of block {block} are not finite: these weights give no features")
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"{name} labels go from {labels.min()} to {labels.max()}, classes from 0 to {classes - 1}")
