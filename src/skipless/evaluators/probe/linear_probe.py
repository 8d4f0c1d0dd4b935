"""Dense linear probing (section 6.2.1, Tables 2 and 3, Figure 2): all blocks and learning rates in one training.

The backbone is frozen, so its features are computed only once (`build_store`). Heads for every block and every learning
rate are trained on the same batches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor

from skipless.choices import Select
from skipless.display import Record, Table
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.features.extraction import Kind
from skipless.evaluators.probe.confusion import BatchReader, BlockSet, patch_confusions, pixel_confusions
from skipless.evaluators.probe.dense_set import CellTargets, DenseSet, Skipped, loss_grid
from skipless.evaluators.probe.heads import LinearHeads, train_step_
from skipless.evaluators.probe.protocols import DenseProtocol
from skipless.evaluators.probe.results import BlockScore, ProbeResult, RateScore, at_edge, best_rate
from skipless.evaluators.probe.segmentation_metrics import predict_pixels, segmentation_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class TrainedProbe(Record):
    """The result of probing, with the chosen heads.

    Attributes:
        result: all scores, ready for JSON.
        heads: for each set of blocks, the chosen head as a plain linear map of the blocks' concatenated features, on
            the CPU; a set is missing if all of its heads diverged.
        kind: kind of the features.
    """

    result: ProbeResult
    heads: dict[BlockSet, tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]]
    kind: Kind

    def _summary(self) -> str:
        return f"{counted(len(self.heads), 'head')} kept; {self.result._summary()}"

    def tables(self) -> Sequence[Table]:
        """A row for each set of blocks."""
        return self.result.tables()

    def _draw(self, axes: "Axes") -> None:
        self.result._draw(axes)

    def predict(self, data: DenseSet, image: int, blocks: BlockSet, size: tuple[int, int]) -> Int64[Tensor, "h w"]:
        """Predict the class of every pixel of an image with the head on these blocks, at any size in pixels."""
        weight, bias = self.heads[blocks]
        x = data.features(blocks, self.kind, [image]).to(weight)
        return predict_pixels((x @ weight + bias)[0], data.grid, size)


def linear_probe(
    train: DenseSet,
    val: DenseSet,
    *,
    protocol: DenseProtocol,
    sets: Sequence[BlockSet],
    kind: Kind = "tokens",
    select: Select = "val",
    holdout: float = 0.2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedProbe:
    """Train heads for every learning rate and set of blocks together, choose each set's rate, and score it.

    mIoU comes from one confusion matrix over the validation set, at the size of each mask: logits are interpolated
    bilinearly before the argmax. In a distributed run the sets of blocks are distributed over the processes.

    Args:
        train: training images with their features.
        val: images to score.
        protocol: how heads are trained.
        sets: sets of blocks: one block, `(3,)`, or several whose features are concatenated, `(8, 9, 10, 11)`.
        kind: kind of the features.
        select: images that the learning rate is chosen on. `"val"` takes the validation set, as papers do, so that
            scores are comparable. `"holdout"` holds out training images, which keeps the validation scores unbiased.
        holdout: fraction of the training images to hold out, with `select="holdout"`.
        seed: seed of initial weights, image order, sampled patches and held-out images.
        device: device to train on.
        dtype: dtype to train in.
        progress: called with the number of steps done and the number of all steps.

    Raises:
        InputError: if sets, kind or sizes do not match the stores, or most images of a set cannot be used.
    """
    _check(train, val, sets, kind, select, holdout)
    training, held_out = _hold_out(train, select, holdout, seed)
    targets = CellTargets.read(train, training, loss_grid(protocol, train.grid), protocol.pixels_per_cell)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    local_sets = list(sets)[rank::world]
    widths = {blocks: sum(train.store.dim[block, kind] for block in blocks) for blocks in local_sets}
    heads = {
        blocks: LinearHeads(width, targets.classes, protocol.optimizer, seed=seed, device=device, dtype=dtype)
        for blocks, width in widths.items()
    }
    losses = _train(heads, train, targets, protocol, kind, seed, progress)
    selection_set, images = (train, held_out) if select == "holdout" else (val, val.usable)
    mious, chosen_on = _selection_scores(heads, selection_set, images, protocol, kind)
    rates = {blocks: _rates(heads[blocks], mious[blocks], losses[blocks]) for blocks in local_sets}
    folded = {
        blocks: heads[blocks].folded(best) for blocks in local_sets if (best := best_rate(rates[blocks])) is not None
    }
    maps = {blocks: (weight[..., None], bias[..., None]) for blocks, (weight, bias) in folded.items()}
    confusions, counted = pixel_confusions(maps, val, val.usable, kind)
    scores = _all_gather({blocks: _score(blocks, rates[blocks], confusions) for blocks in local_sets})
    folded = _all_gather({blocks: (weight.cpu(), bias.cpu()) for blocks, (weight, bias) in folded.items()})
    counts = {"train": len(targets.images), "chosen_on": chosen_on, "val": counted}
    ordered = tuple(scores[blocks] for blocks in sets)
    result = _result((train, val), ordered, counts, protocol=protocol, select=select, kind=kind, seed=seed)
    return TrainedProbe(result, folded, kind)


def _result(
    data: tuple[DenseSet, DenseSet],
    blocks: tuple[BlockScore, ...],
    counts: Mapping[str, int],
    *,
    protocol: DenseProtocol,
    kind: Kind,
    **more: Any,
) -> ProbeResult:
    """The record of a probe; `counts` are the images that were trained on, chosen on and scored."""
    train, _ = data
    skipped = [Skipped(one.split, index, why) for one in data for index, why in sorted(one.skipped.items())]
    return ProbeResult(
        protocol=protocol,
        kind=kind,
        norm=train.store.norm if kind == "tokens" else "none",
        classes=tuple(train.data.classes),
        grid=train.grid,
        blocks=blocks,
        steps=protocol.steps(counts["train"]),
        skipped=tuple(skipped),
        **counts,
        **more,
    )


def _hold_out(train: DenseSet, select: str, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the usable images into those to train on and those to choose the learning rate on."""
    usable = np.random.default_rng(seed).permutation(train.usable)
    count = max(1, round(holdout * len(usable))) if select == "holdout" else 0
    if count >= len(usable):
        raise InputError(f"holdout={holdout} leaves none of {len(usable)} training images")
    return np.sort(usable[count:]), np.sort(usable[:count])


def _check(train: DenseSet, val: DenseSet, sets: Sequence[BlockSet], kind: Kind, select: str, holdout: float) -> None:
    if not sets or not all(sets) or len(set(sets)) < len(sets):
        raise InputError(f"sets={list(sets)!r}: name each set of blocks once, each with a block")
    absent = {(block, kind) for blocks in sets for block in blocks} - (set(train.store.keys) & set(val.store.keys))
    if absent:
        raise InputError(f"no features (block, kind) {sorted(absent)} in the stores; build them with these")
    if select not in get_args(Select) or not 0 < holdout < 1:
        raise InputError(f"select={select!r}, holdout={holdout}: choose from val, holdout; a share between 0 and 1")
    if tuple(train.data.classes) != tuple(val.data.classes):
        raise InputError(
            f"{train.split} has {len(train.data.classes)} classes, {val.split} {len(val.data.classes)} others"
        )
    if train.grid != val.grid or train.store.norm != val.store.norm:
        raise InputError(f"{train.split} and {val.split} have features of another grid or norm")


def _train(
    heads: dict[BlockSet, LinearHeads],
    data: DenseSet,
    targets: CellTargets,
    protocol: DenseProtocol,
    kind: Kind,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> dict[BlockSet, list[float]]:
    """Train all heads; returns the mean loss of each over the last epoch."""
    steps = protocol.steps(len(targets.images))
    resize = None if protocol.loss_size is None else (data.grid, targets.cells)
    last = steps - -(-len(targets.images) // protocol.batch_size)
    losses: dict[BlockSet, list[Tensor]] = {blocks: [] for blocks in heads}
    for step, (positions, patches) in enumerate(_batches(targets, protocol, data.grid, seed, steps)):
        first = next(iter(heads.values()), None)
        if first is None:
            break
        like = first.parameters["weight"]
        target = targets.class_shares(positions, like.device).to(like.dtype)
        if patches is not None:
            target = target.gather(
                1, torch.from_numpy(patches)[..., None].to(like.device).expand(-1, -1, target.shape[2])
            )
        read = BatchReader(data, kind, targets.images[positions], patches, like)
        for blocks, set_heads in heads.items():
            loss = train_step_(set_heads, read(blocks), target, step, steps, resize=resize, with_loss=step >= last)
            losses[blocks] += [] if loss is None else [loss]
        if progress is not None:
            progress(step + 1, steps)
    return {
        blocks: torch.stack(values).mean(0).tolist()
        if values
        else [float("nan")] * len(protocol.optimizer.learning_rates)
        for blocks, values in losses.items()
    }


def _batches(
    targets: CellTargets, protocol: DenseProtocol, grid: tuple[int, int], seed: int, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield positions in the targets and the sampled patches of each. They depend on the seed only."""
    count, cells = len(targets.images), grid[0] * grid[1]
    generator = np.random.default_rng((seed, 1))
    order = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        if not len(order):
            order = generator.permutation(count)
        positions, order = order[: protocol.batch_size], order[protocol.batch_size :]
        sampled = protocol.patches_per_image
        if sampled is None or sampled >= cells:
            yield positions, None
        else:
            drawn = generator.random((len(positions), cells)).argpartition(sampled, axis=1)[:, :sampled]
            yield positions, np.sort(drawn, axis=1)


def _selection_scores(
    heads: dict[BlockSet, LinearHeads], data: DenseSet, images: np.ndarray, protocol: DenseProtocol, kind: Kind
) -> tuple[dict[BlockSet, list[float | None]], int]:
    """mIoU of every head on the images that learning rates are chosen on, and the number of these images."""
    rates = range(len(protocol.optimizer.learning_rates))
    maps = {}
    for blocks, set_heads in heads.items():
        weights, biases = zip(*(set_heads.folded(rate) for rate in rates), strict=True)
        maps[blocks] = (torch.stack(weights, -1), torch.stack(biases, -1))
    confusions, counted = (patch_confusions if protocol.choose_at == "patch" else pixel_confusions)(
        maps, data, images, kind
    )
    return {
        blocks: [
            segmentation_scores(c).miou if ok else None
            for c, ok in zip(confusions[blocks], set_heads.finite, strict=True)
        ]
        for blocks, set_heads in heads.items()
    }, counted


def _rates(heads: LinearHeads, mious: list[float | None], losses: list[float]) -> tuple[RateScore, ...]:
    found = zip(heads.optimizer.learning_rates, mious, losses, heads.finite, strict=True)
    return tuple(
        RateScore(rate, miou if finite else None, loss if np.isfinite(loss) else None, finite)
        for rate, miou, loss, finite in found
    )


def _score(
    blocks: BlockSet, rates: tuple[RateScore, ...], confusions: dict[BlockSet, Int64[Tensor, "l c c"]]
) -> BlockScore:
    best = best_rate(rates)
    return BlockScore(
        blocks=blocks,
        learning_rate=None if best is None else rates[best].learning_rate,
        at_edge=at_edge(rates, best),
        scores=None if best is None else segmentation_scores(confusions[blocks][0]),
        rates=rates,
    )


def _all_gather(local: dict[BlockSet, Any]) -> dict[BlockSet, Any]:
    """Merge the dicts of all processes."""
    if not dist.is_initialized():
        return local
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, local)
    return {blocks: value for part in parts for blocks, value in part.items()}
