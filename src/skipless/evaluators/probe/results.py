"""Records of linear probing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from skipless.evaluators.probe.dense_set import Skipped
from skipless.evaluators.probe.protocols import DenseProtocol
from skipless.evaluators.probe.segmentation_metrics import SegmentationScores


@dataclass(frozen=True)
class RateScore:
    """One learning rate's head.

    Attributes:
        learning_rate: its own.
        miou: in percent, on the images that the rate is chosen on, at the protocol's `choose_at`; None if it diverged.
        train_loss: mean cross-entropy over the last epoch, in nats; None if it diverged.
        finite: whether its weights are.
    """

    learning_rate: float
    miou: float | None
    train_loss: float | None
    finite: bool


@dataclass(frozen=True)
class BlockScore:
    """What one block, or several side by side, are worth.

    Attributes:
        blocks: from 0.
        learning_rate: the chosen one; None if every head diverged.
        at_edge: whether it is the lowest or highest of several, so that the grid may be too narrow.
        scores: of the chosen head on the validation set, at the masks' own size; None if every head diverged.
        rates: every learning rate's head.
    """

    blocks: tuple[int, ...]
    learning_rate: float | None
    at_edge: bool
    scores: SegmentationScores | None
    rates: tuple[RateScore, ...]

    @property
    def miou(self) -> float | None:
        """In percent."""
        return None if self.scores is None else self.scores.miou


@dataclass(frozen=True)
class ProbeResult:
    """A dense linear probe's numbers, with what they depend on.

    Attributes:
        protocol: every number of it.
        select: what the learning rate was chosen on: `val`, the images that are reported on, as papers do, which
            flatters; or `holdout`, training images that no head was trained on.
        kind: of the features.
        norm: what the blocks' outputs went through.
        classes: their names.
        grid: rows and columns of patches.
        blocks: one score each.
        train: number of images that the heads were trained on.
        chosen_on: number of images that the learning rate was chosen on.
        val: number of images that the scores are on.
        steps: of the heads.
        seed: of initial weights and order.
        skipped: images that were left out, and why.
    """

    protocol: DenseProtocol
    select: str
    kind: str
    norm: str
    classes: tuple[str, ...]
    grid: tuple[int, int]
    blocks: tuple[BlockScore, ...]
    train: int
    chosen_on: int
    val: int
    steps: int
    seed: int
    skipped: tuple[Skipped, ...]

    @property
    def best(self) -> BlockScore:
        """The blocks with the highest mIoU: chosen on the validation set, which flatters."""
        return max(self.blocks, key=lambda score: -1.0 if score.miou is None else score.miou)

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self) | {"best": list(self.best.blocks)}

    def __str__(self) -> str:
        lines = [f"{'blocks':<14}{'mIoU':>7}{'pixels':>8}{'lr':>9}"]
        for score in self.blocks:
            name = "+".join(map(str, score.blocks))
            if score.scores is None or score.miou is None or score.scores.pixel_accuracy is None:
                lines.append(f"{name:<14}{'-':>7}{'-':>8}{'-':>9}  every head diverged, or nothing was to be counted")
                continue
            edge = "  at the end of the grid" if score.at_edge else ""
            lines.append(
                f"{name:<14}{score.miou:>7.2f}{score.scores.pixel_accuracy:>8.2f}{score.learning_rate:>9.0e}{edge}"
            )
        chosen = "validation" if self.select == "val" else "held-out training"
        about = f"protocol {self.protocol.name}, {self.kind} of {self.train} images, mIoU on {self.val}"
        lines.append(f"{about}, learning rate chosen on {self.chosen_on} {chosen} images")
        if self.skipped:
            lines.append(f"{len(self.skipped)} images were left out; the first: {self.skipped[0].reason}")
        return "\n".join(lines)


def best_rate(rates: Sequence[RateScore]) -> int | None:
    """The position of the highest score, of equals the lowest learning rate's; None if none has one."""
    scored = [(-rate.miou, rate.learning_rate, i) for i, rate in enumerate(rates) if rate.miou is not None]
    return min(scored)[2] if scored else None


def at_edge(rates: Sequence[RateScore], chosen: int | None) -> bool:
    """Whether the chosen learning rate is at an end of a grid of several."""
    grid = [rate.learning_rate for rate in rates]
    return chosen is not None and len(grid) > 1 and grid[chosen] in (min(grid), max(grid))
