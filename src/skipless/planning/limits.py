"""What limits a run: its parts in seconds, as records, and one sentence of advice."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Limit = Literal["loader", "optimizer", "evaluation", "checkpoint", "step"]

# From these shares of the run on, a part is worth a word before the step itself.
_WAITING, _OPTIMIZER, _PAUSES = 0.15, 0.3, 0.15


@dataclass(frozen=True)
class Seconds:
    """How long something took, again and again.

    Attributes:
        median: in seconds.
        low, high: the quickest and the slowest.
        n: how often it was seen.
    """

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Seconds | None":
        """Summarise; None where there is nothing.

        Example:
            >>> Seconds.of([3.0, 1.0, 2.0])
            Seconds(median=2.0, low=1.0, high=3.0, n=3)
        """
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds)) if seconds else None

    def __str__(self) -> str:
        return f"{1e3 * self.median:.1f} ms ({1e3 * self.low:.1f} to {1e3 * self.high:.1f}, n = {self.n})"


@dataclass(frozen=True)
class Limits:
    """Where the time of a run goes.

    Attributes:
        device: where it ran, `cpu` or `cuda`.
        cores: that this process may use.
        workers: that fetched.
        batch_size: images of a step, of this process.
        precision: of the passes.
        optimizer_name: its class.
        loader: images/s that the loader gives alone.
        between: seconds from one update to the next forward pass: the batch, averages, log lines.
        passes: seconds of forward and backward.
        update: seconds of an ordinary optimizer step.
        refresh: seconds of one that refreshes SOAP's bases; None where nothing is refreshed.
        refresh_every: steps between these, in the run as asked for.
        evaluation: seconds of one evaluation; None if there is none.
        checkpoint: seconds of one checkpoint.
        steps_per_epoch: of the run.
        evaluate_every: epochs between evaluations; 0 is at the end only.
        checkpoint_every: steps between checkpoints.
        processes: that share the run.
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

    @property
    def optimizer(self) -> float:
        """Seconds of an average optimizer step, refreshes shared out over the steps between them."""
        if self.refresh is None:
            return self.update.median
        return self.update.median + (self.refresh.median - self.update.median) / self.refresh_every

    @property
    def step(self) -> float:
        """Seconds of an average step, data and all."""
        return self.between.median + self.passes.median + self.optimizer

    @property
    def images_per_second(self) -> float:
        """Of the loop, between evaluations and checkpoints."""
        return self.batch_size / self.step

    def shares(self) -> dict[str, float]:
        """Each part's share of a run's time, 0 to 1; they add up to 1."""
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
    def limit(self) -> Limit:
        """What to look at first: what could be had for nothing before what the training itself costs."""
        shares = self.shares()
        needed = self.batch_size / (self.passes.median + self.optimizer)
        if shares["between steps"] >= _WAITING and self.loader < 1 / _WAITING * needed:
            return "loader"
        if shares["evaluation"] >= _PAUSES:
            return "evaluation"
        if shares["checkpoint"] >= _PAUSES:
            return "checkpoint"
        return "optimizer" if shares["optimizer"] >= _OPTIMIZER else "step"

    @property
    def advice(self) -> str:
        """One sentence."""
        share = {"loader": "between steps", "step": "forward and backward"}.get(self.limit, self.limit)
        per_cent = f"{100 * self.shares()[share]:.0f} %"
        return {
            "loader": self._about_loader,
            "optimizer": self._about_optimizer,
            "evaluation": self._about_evaluation,
            "checkpoint": self._about_checkpoint,
            "step": self._about_step,
        }[self.limit](per_cent)

    def _about_loader(self, share: str) -> str:
        needed = self.batch_size / (self.passes.median + self.optimizer)
        found = f"the loader limits this run ({share} of the time is spent between steps)"
        if self.loader < needed:
            each = self.loader / max(self.workers, 1)
            wanted = -(-needed // each)
            free = "" if wanted <= self.cores else f", and there are {self.cores} cores: crop less, or decode less"
            return (
                f"{found}: alone it gives {self.loader:.0f} images/s with {self.workers} workers, the rest of the step "
                f"takes {needed:.0f}; that asks for about --workers {wanted:.0f}{free}"
            )
        if not self.workers:
            return f"{found}: nothing fetches during a step; give --workers 1 or more, or a larger --batch-size"
        return f"{found}, though alone it is fast enough; workers and training share {self.cores} cores: try fewer"

    def _about_optimizer(self, share: str) -> str:
        found = f"the optimizer limits this run ({share} of the time)"
        larger = "a larger --batch-size takes fewer of its steps"
        if self.refresh is None:
            return f"{found}: {larger}"
        refreshing = (self.optimizer - self.update.median) / self.optimizer
        rarer = f"refreshing less often than every {self.refresh_every} steps" if refreshing > 0.4 else ""
        shared = "" if self.processes > 1 else "more processes share SOAP out"
        return f"{found}: {', '.join(part for part in (larger, shared, rarer) if part)}"

    def _about_evaluation(self, share: str) -> str:
        return (
            f"evaluations limit this run ({share} of the time, {self.evaluation or 0.0:.1f} s each): evaluate less "
            f"often than every {self.evaluate_every} epochs (fit.evaluate_every)"
        )

    def _about_checkpoint(self, share: str) -> str:
        return (
            f"checkpoints limit this run ({share} of the time, {self.checkpoint:.2f} s each): write fewer than one in "
            f"{self.checkpoint_every} steps (fit.checkpoint_every), or to a faster disk"
        )

    def _about_step(self, share: str) -> str:
        found = f"forward and backward limit this run ({share} of the time), as they should"
        if self.device == "cpu":
            return f"{found}: a GPU would be faster, or more --threads where cores are idle"
        if self.precision == "fp32":
            return f"{found}: --precision bf16 uses the GPU's matrix units"
        return f"{found}: --compile fuses what lies between products; a larger micro-batch may fill the GPU better"


def limits_text(limits: Limits) -> str:
    """The breakdown and the advice, in lines."""
    shares = limits.shares()
    refresh = "" if limits.refresh is None else f"; with a refresh {limits.refresh}, every {limits.refresh_every} steps"
    evaluation = "none" if limits.evaluation is None else f"{limits.evaluation:.1f} s each"
    parts = {
        "between steps": str(limits.between),
        "forward and backward": str(limits.passes),
        "optimizer": f"{limits.update}{refresh}",
        "evaluation": evaluation,
        "checkpoint": f"{1e3 * limits.checkpoint:.0f} ms each",
    }
    lines = [
        f"the loop        {limits.images_per_second:.4g} images/s on {limits.device}, {limits.precision}, "
        f"batch {limits.batch_size}, {limits.optimizer_name}",
        f"loader alone    {limits.loader:.4g} images/s with {limits.workers} workers",
    ]
    lines += [f"{100 * shares[name]:5.1f} %  {name:20}  {value}" for name, value in parts.items()]
    return "\n".join([*lines, limits.advice])
