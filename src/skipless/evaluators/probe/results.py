"""Result records of dense linear probing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skipless.display import Record, Table
from skipless.display.axes import from_zero, legend, level, lines_by_name
from skipless.display.values import counted
from skipless.evaluators.probe.dense_set import Skipped
from skipless.evaluators.probe.protocols import DenseProtocol
from skipless.evaluators.probe.segmentation_metrics import SegmentationScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RateScore(Record):
    """The score of one learning rate's head.

    Attributes:
        learning_rate: the learning rate.
        miou: mIoU in percent on the images that the rate is chosen on, by the protocol's `choose_at`; None if the head
            diverged.
        train_loss: mean cross-entropy over the last epoch, in nats; None if the head diverged.
        finite: whether all weights are finite.
    """

    learning_rate: float
    miou: float | None
    train_loss: float | None
    finite: bool


@dataclass(frozen=True, repr=False)
class BlockScore(Record):
    """The score of one block, or of several with concatenated features.

    Attributes:
        blocks: positions of the blocks, from 0.
        learning_rate: the chosen learning rate; None if every head diverged.
        at_edge: whether the chosen rate is the lowest or highest of several, so that the grid may be too narrow.
        scores: scores of the chosen head on the validation set, at the masks' size; None if every head diverged.
        rates: the heads of all learning rates.
    """

    blocks: tuple[int, ...]
    learning_rate: float | None
    at_edge: bool
    scores: SegmentationScores | None
    rates: tuple[RateScore, ...]

    @property
    def miou(self) -> float | None:
        """mIoU of the chosen head in percent; None if every head diverged."""
        return None if self.scores is None else self.scores.miou

    @property
    def name(self) -> str:
        """The blocks' positions, joined."""
        return "+".join(map(str, self.blocks))

    def _summary(self) -> str:
        if self.miou is None or self.learning_rate is None:
            return f"block {self.name}, every head of {len(self.rates)} diverged"
        edge = ", at the end of the grid" if self.at_edge else ""
        rate = f"learning rate {self.learning_rate:g} of {len(self.rates)}{edge}"
        return f"block {self.name}, mIoU {self.miou:.2f} %, {rate}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each learning rate."""
        rows = [
            (f"{r.learning_rate:g}", _number(r.miou), "" if r.train_loss is None else f"{r.train_loss:.4g}")
            for r in self.rates
        ]
        about = f"block {self.name}; mIoU in % on the images that the rate is chosen on, loss in nats"
        edge = ["! the chosen rate ends the grid"] if self.at_edge else []
        return (Table(("learning rate", "mIoU, %", "training loss"), rows, about, edge, align="rrr"),)

    def _draw(self, axes: "Axes") -> None:
        rates = [f"{rate.learning_rate:g}" for rate in self.rates]
        lines_by_name(axes, rates, {"": [rate.miou for rate in self.rates]}, "mIoU, %", "learning rate")


@dataclass(frozen=True, repr=False)
class ProbeResult(Record):
    """The scores of a dense linear probe, with everything that they depend on.

    Attributes:
        protocol: how the heads were trained.
        select: images that the learning rate was chosen on: `val`, the scored images themselves, as papers do, which
            biases the scores upwards; or `holdout`, training images that no head was trained on.
        kind: kind of the features.
        norm: norm applied to the blocks' outputs.
        classes: names of the classes.
        grid: rows and columns of patches.
        blocks: the score of each set of blocks.
        train: number of images that heads were trained on.
        chosen_on: number of images that learning rates were chosen on.
        val: number of scored images.
        steps: number of training steps.
        seed: seed of initial weights and image order.
        skipped: images that were left out, with the reasons.
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
        """The set of blocks with the highest mIoU, chosen on the validation set itself, which biases it upwards."""
        return max(self.blocks, key=lambda score: -1.0 if score.miou is None else score.miou)

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self) | {"best": list(self.best.blocks)}

    def _summary(self) -> str:
        found = "none finite" if self.best.miou is None else f"{self.best.miou:.2f} % at block {self.best.name}"
        return f"best mIoU {found}, {counted(len(self.blocks), 'set')} of blocks; {self._setting()}"

    def _setting(self) -> str:
        chosen = "validation" if self.select == "val" else "held-out training"
        about = f"protocol {self.protocol.name}, {self.kind} of {self.train} images, mIoU on {self.val}"
        return f"{about}, learning rate chosen on {self.chosen_on} {chosen} images"

    def _left_out(self) -> str:
        were = "was" if len(self.skipped) == 1 else "were"
        return f"{counted(len(self.skipped), 'image')} {were} left out; the first: {self.skipped[0].reason}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each set of blocks."""
        rows = [
            (one.name, _number(one.miou), _number(one.scores.pixel_accuracy if one.scores else None), _rate(one))
            for one in self.blocks
        ]
        notes = [f"! block {one.name}: the chosen rate ends the grid" for one in self.blocks if one.at_edge]
        notes += [f"! block {one.name}: every head diverged" for one in self.blocks if one.scores is None]
        if self.skipped:
            notes.append(f"! {self._left_out()}")
        head = ("blocks", "mIoU, %", "pixel accuracy, %", "learning rate")
        return (Table(head, rows, f"{self._setting()}, seed {self.seed}", notes, align="lrrr"),)

    def _draw(self, axes: "Axes") -> None:
        self.draw_beside(axes, None)

    def draw_beside(self, axes: "Axes", majority: float | None) -> None:
        """Draw mIoU by block, beside that of the most frequent class where it is known."""
        lines_by_name(axes, [one.name for one in self.blocks], {"mIoU": [one.miou for one in self.blocks]}, "mIoU, %")
        if majority is not None:
            level(axes, majority, "most frequent class")
        from_zero(axes)
        legend(axes)

    def __str__(self) -> str:
        lines = [f"{'blocks':<14}{'mIoU':>7}{'pixels':>8}{'lr':>9}"]
        for score in self.blocks:
            name = score.name
            if score.scores is None or score.miou is None or score.scores.pixel_accuracy is None:
                lines.append(f"{name:<14}{'-':>7}{'-':>8}{'-':>9}  every head diverged, or nothing was to be counted")
                continue
            edge = "  at the end of the grid" if score.at_edge else ""
            lines.append(
                f"{name:<14}{score.miou:>7.2f}{score.scores.pixel_accuracy:>8.2f}{score.learning_rate:>9.0e}{edge}"
            )
        lines.append(self._setting())
        if self.skipped:
            lines.append(self._left_out())
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rate(score: BlockScore) -> str:
    return "-" if score.learning_rate is None else f"{score.learning_rate:.0e}"


def best_rate(rates: Sequence[RateScore]) -> int | None:
    """Position of the highest score, ties going to the lowest learning rate; None if every head diverged."""
    scored = [(-rate.miou, rate.learning_rate, i) for i, rate in enumerate(rates) if rate.miou is not None]
    return min(scored)[2] if scored else None


def at_edge(rates: Sequence[RateScore], chosen: int | None) -> bool:
    """Whether the chosen learning rate is the lowest or highest of several."""
    grid = [rate.learning_rate for rate in rates]
    return chosen is not None and len(grid) > 1 and grid[chosen] in (min(grid), max(grid))
