"""RunProfile: the time of the parts of a run, its bottleneck, and advice on it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skipless.display import Record, Table
from skipless.display.axes import bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bottleneck = Literal["loader", "loop", "step", "optimizer", "evaluation", "checkpoint"]

_CLOSE = 0.1  # shares of time that differ by less may swap places in the next run
_SPARED = 0.15  # from this share of time on, advice mentions overhead that is not the bottleneck

_NAMES: dict[Bottleneck, tuple[str, str]] = {
    "loader": ("the loader", "limits"),
    "loop": ("what is done between steps", "limits"),
    "step": ("forward and backward", "limit"),
    "optimizer": ("the optimizer", "limits"),
    "evaluation": ("evaluations", "limit"),
    "checkpoint": ("checkpoints", "limit"),
}


@dataclass(frozen=True)
class Seconds(Record):
    """Statistics of a repeated time measurement.

    Attributes:
        median: median in seconds.
        low: shortest time in seconds.
        high: longest time in seconds.
        n: number of measurements.
    """

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Seconds | None":
        """Summarise measurements; None if there are none.

        Example:
            >>> Seconds.of([3.0, 1.0, 2.0])
            Seconds(median=2.0, low=1.0, high=3.0, n=3)
        """
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds)) if seconds else None

    def __str__(self) -> str:
        return f"{1e3 * self.median:.1f} ms ({1e3 * self.low:.1f} to {1e3 * self.high:.1f}, n = {self.n})"


@dataclass(frozen=True, repr=False)
class RunProfile(Record):
    """The time that the parts of a run take.

    Attributes:
        device: device of the run, `cpu` or `cuda`.
        cores: number of cores that this process may use.
        workers: number of worker processes of the loader.
        batch_size: samples of a step on this process.
        precision: precision of the passes.
        optimizer_name: class of the optimizer.
        loader: samples/s of the loader alone.
        between: seconds from an update to the next forward pass: loading the batch, metrics, log lines.
        passes: seconds of forward and backward pass.
        update: seconds of an ordinary optimizer step.
        refresh: seconds of an optimizer step that refreshes SOAP's bases; None if there are none.
        refresh_every: steps between refreshes in the run as asked for.
        evaluation: seconds of one evaluation; None if there is none.
        checkpoint: seconds of one checkpoint.
        steps_per_epoch: optimizer steps of an epoch.
        evaluate_every: epochs between evaluations; 0 evaluates at the end only.
        checkpoint_every: steps between checkpoints.
        processes: number of processes of the run.
        unit: what a sample is: an image, or a window of text.
    """

    device: str
    cores: int
    workers: int
    batch_size: int
    precision: str
    optimizer_name: str
    loader: float
    between: Seconds
    passes: Seconds
    update: Seconds
    refresh: Seconds | None
    refresh_every: int
    evaluation: float | None
    checkpoint: float
    steps_per_epoch: int
    evaluate_every: int
    checkpoint_every: int
    processes: int = 1
    unit: str = "image"

    def _summary(self) -> str:
        part, share = self.ranked()[0]
        where = f"{self.device}, {self.precision}, batch {self.batch_size}, {self.optimizer_name}"
        return f"{self.images_per_second:.4g} {self.unit}s/s, {_NAMES[part][0]} {_per_cent(share)} of the time; {where}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each part of the run; the advice below it."""
        rows = [(name, _per_cent(self.shares()[name]), text) for name, text in part_times(self).items()]
        loader = f"loader alone {self.loader:.4g} {self.unit}s/s with {self.workers} workers"
        caption = f"{self._setting()}; {loader}; time is the median (shortest to longest)"
        return (Table(("part", "share", "time"), rows, caption, self.advice.splitlines(), align="lrl"),)

    def _draw(self, axes: "Axes") -> None:
        bars(axes, {name: 100 * share for name, share in self.shares().items()}, "% of the run's time")

    def __str__(self) -> str:
        return profile_text(self)

    def _setting(self) -> str:
        what = f"{self.device}, {self.precision}, batch {self.batch_size}, {self.optimizer_name}"
        return f"{self.images_per_second:.4g} {self.unit}s/s on {what}"

    @property
    def optimizer(self) -> float:
        """Seconds of an average optimizer step, with refreshes averaged over all steps."""
        if self.refresh is None:
            return self.update.median
        return self.update.median + (self.refresh.median - self.update.median) / self.refresh_every

    @property
    def step(self) -> float:
        """Seconds of an average training step, including data loading."""
        return self.between.median + self.passes.median + self.optimizer

    @property
    def images_per_second(self) -> float:
        """Images/s of the loop, without evaluations and checkpoints."""
        return self.batch_size / self.step

    def shares(self) -> dict[str, float]:
        """Return the share of each part in the time of a run, 0 to 1; the sum is 1."""
        evaluated = self.evaluate_every * self.steps_per_epoch
        parts = {
            "between steps": self.between.median,
            "forward and backward": self.passes.median,
            "optimizer": self.optimizer,
            "evaluation": (self.evaluation or 0.0) / evaluated if evaluated else 0.0,
            "checkpoint": self.checkpoint / self.checkpoint_every,
        }
        whole = sum(parts.values())
        return {name: seconds / whole for name, seconds in parts.items()}

    @property
    def bottleneck(self) -> Bottleneck:
        """The part that takes the largest share of the time."""
        return self.ranked()[0][0]

    def ranked(self) -> list[tuple[Bottleneck, float]]:
        """Return the parts and their shares, largest first; time between steps is the loader's or the loop's."""
        named: dict[str, Bottleneck] = {
            "between steps": "loader" if self._loader_is_slow else "loop",
            "forward and backward": "step",
            "optimizer": "optimizer",
            "evaluation": "evaluation",
            "checkpoint": "checkpoint",
        }
        shares: list[tuple[Bottleneck, float]] = [(named[part], share) for part, share in self.shares().items()]
        return sorted(shares, key=lambda found: -found[1])

    @property
    def _needed(self) -> float:
        """Images/s of a step without data loading."""
        return self.batch_size / (self.passes.median + self.optimizer)

    @property
    def _loader_is_slow(self) -> bool:
        """Whether the loader explains the time between steps; during training its workers are slower than alone."""
        if not self.workers:
            return self.batch_size / self.loader >= self.between.median / 2
        return self.loader < self._needed / _SPARED

    @property
    def advice(self) -> str:
        """Lines of text: the bottleneck and its remedy, then parts close to it, then avoidable overhead."""
        first, largest = self.ranked()[0]
        others = self.ranked()[1:]
        close = [found for found in others if largest - found[1] <= _CLOSE]
        far = others[len(close) :]
        spared = [found for found in far if found[1] >= _SPARED and found[0] not in ("step", "optimizer")]
        name, limits = _NAMES[first]
        proper = ", as they should" if first == "step" and not (close or spared) else ""
        told = [f"{name} {limits} this run ({_per_cent(largest)} of the time){proper}: {self._remedy(first)}"]
        told += [f"close behind, {self._named(*found)}" for found in close]
        told += [f"besides, {self._named(*found)}" for found in spared]
        return "\n".join(told)

    def _named(self, part: Bottleneck, share: float) -> str:
        return f"{_NAMES[part][0]} ({_per_cent(share)}): {self._remedy(part)}"

    def _remedy(self, part: Bottleneck) -> str:
        return {
            "loader": self._about_loader,
            "loop": self._about_loop,
            "optimizer": self._about_optimizer,
            "evaluation": self._about_evaluation,
            "checkpoint": self._about_checkpoint,
            "step": self._about_step,
        }[part]()

    def _about_loader(self) -> str:
        if self.loader < self._needed:
            each = self.loader / max(self.workers, 1)
            wanted = -(-self._needed // each)
            free = "" if wanted <= self.cores else f", and there are {self.cores} cores: crop less, or decode less"
            return (
                f"alone it gives {self.loader:.0f} {self.unit}s/s with {self.workers} workers, the rest of the step "
                f"takes {self._needed:.0f}; that asks for about --workers {wanted:.0f}{free}"
            )
        if not self.workers:
            return "nothing fetches during a step; give --workers 1 or more, or a larger --batch-size"
        return f"alone it is fast enough, but workers and training share {self.cores} cores; try fewer --workers"

    def _about_loop(self) -> str:
        alone = 1e3 * self.batch_size / self.loader
        return (
            f"the loader alone takes {alone:.1f} ms of {1e3 * self.between.median:.1f} ms; the rest (moving the batch, "
            "averages, log lines) comes once a step, and a larger --batch-size has fewer"
        )

    def _about_optimizer(self) -> str:
        larger = "a larger --batch-size takes fewer of its steps"
        if self.refresh is None:
            return larger
        refreshing = (self.optimizer - self.update.median) / self.optimizer
        rarer = f"refreshing less often than every {self.refresh_every} steps" if refreshing > 0.4 else ""
        shared = "" if self.processes > 1 else "more processes share SOAP out"
        return ", ".join(part for part in (larger, shared, rarer) if part)

    def _about_evaluation(self) -> str:
        often = "epoch" if self.evaluate_every == 1 else f"{self.evaluate_every} epochs"
        return f"{self.evaluation or 0.0:.3g} s each; evaluate less often than every {often} (fit.evaluate_every)"

    def _about_checkpoint(self) -> str:
        return (
            f"{self.checkpoint:.2f} s each; write fewer than one in {self.checkpoint_every} steps "
            "(fit.checkpoint_every), or to a faster disk"
        )

    def _about_step(self) -> str:
        if self.device == "cpu":
            return "a GPU would be faster, or more --threads where cores are idle"
        if self.precision == "fp32":
            return "--precision bf16 uses the GPU's matrix units"
        return "--compile fuses what lies between products; a larger micro-batch may fill the GPU better"


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def part_times(profile: RunProfile) -> dict[str, str]:
    """Return the measured time of each part, as text."""
    refresh = (
        "" if profile.refresh is None else f"; with a refresh {profile.refresh}, every {profile.refresh_every} steps"
    )
    return {
        "between steps": str(profile.between),
        "forward and backward": str(profile.passes),
        "optimizer": f"{profile.update}{refresh}",
        "evaluation": "none" if profile.evaluation is None else f"{profile.evaluation:.3g} s each",
        "checkpoint": f"{1e3 * profile.checkpoint:.0f} ms each",
    }


def profile_text(profile: RunProfile) -> str:
    """Return the times, shares and advice as lines of text."""
    shares = profile.shares()
    lines = [
        f"the loop        {profile._setting()}",
        f"loader alone    {profile.loader:.4g} {profile.unit}s/s with {profile.workers} workers",
    ]
    lines += [f"{100 * shares[name]:5.1f} %  {name:20}  {value}" for name, value in part_times(profile).items()]
    return "\n".join([*lines, profile.advice])
