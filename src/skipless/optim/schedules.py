"""Schedules: pure functions of the step. They have no state, so a resumed run needs none."""

from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import TYPE_CHECKING, ClassVar

from skipless.display import Record
from skipless.display.axes import ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 400  # of the picture


@dataclass(frozen=True)
class WarmupCosine(Record):
    """Linear warm-up from `start` to `peak`, then half a cosine towards `final`.

    The convention is that of DINO and of the supervised recipe (Xu et al. 2024): the last of the `warmup_steps` is
    already at `peak`, the first step of the cosine is at `peak` too, and the step after the last one would be at
    `final`. The cosine may also rise: with `peak=0.04, final=0.4` it is DINO's weight decay, with `0.996, 1.0` its
    teacher's momentum.

    Args:
        peak: value at the end of the warm-up, in the unit of whatever is scheduled.
        total_steps: steps of the whole run, warm-up included.
        warmup_steps: steps of the linear part.
        start: value at step 0, if there is a warm-up.
        final: value at which the cosine ends.

    Raises:
        InputError: if a value is not finite, or a number of steps is out of range.

    Example:
        >>> schedule = WarmupCosine(peak=1.0, total_steps=7, warmup_steps=3, final=0.0)
        >>> [round(schedule(step), 3) for step in range(7)]
        [0.0, 0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    start: float = 0.0
    final: float = 1e-6

    _size: ClassVar[tuple[float, float]] = (6.4, 2.4)

    def _draw(self, axes: "Axes") -> None:
        steps = sorted({round(i * (self.total_steps - 1) / _POINTS) for i in range(_POINTS + 1)})
        axes.plot(steps, [self(step) for step in steps], color=COLOURS["init"], linewidth=1.4)
        axes.set_xlabel("step", loc="right", labelpad=2)
        axes.set_ylabel("value")
        axes.set_ylim(bottom=min(0.0, self.start, self.final))
        ruled(axes)

    def __post_init__(self) -> None:
        for name in ("peak", "start", "final"):
            if not isfinite(value := getattr(self, name)):
                raise InputError(f"schedule: {name}={value} must be a finite number")
        if self.total_steps < 1:
            raise InputError(f"schedule: total_steps={self.total_steps} must be one or more")
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise InputError(
                f"schedule: warmup_steps={self.warmup_steps} must lie in 0..{self.total_steps} (total_steps): "
                "warm up for less or train for longer"
            )

    def __call__(self, step: int) -> float:
        """Give the value for the update with index `step`, which lies in `0..total_steps - 1`."""
        if not 0 <= step < self.total_steps:
            raise InputError(f"schedule: step {step} lies outside 0..{self.total_steps - 1}: raise total_steps")
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / max(self.warmup_steps - 1, 1)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + (self.peak - self.final) * (1 + cos(pi * done)) / 2
