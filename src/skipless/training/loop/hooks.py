"""What a task may want to do around a step besides its loss; DINO's teacher, clipping and watchmen come in here."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer


@runtime_checkable
class StepHooks(Protocol):
    """A task with these three methods has them called at every optimizer step, counted from 0.

    A resumed run calls them for the steps that are left: whatever they keep must follow from the step, or be in the
    task's `state_dict()`.

    A task that looks into its parts outside its forward pass takes them through an attribute `whole`, a function from
    a module to the same with all of its weights: itself, until a loop that shares parameters out puts its own there.
    """

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Before the first forward pass, after the learning rate was set."""
        ...

    def before_update(self, step: int) -> Mapping[str, Tensor]:
        """With all gradients there, unscaled, and clipped if `FitConfig.clip_norm` says so.

        Returns:
            Named scalars to log beside the task's own, the same names at every step.
        """
        ...

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """After the optimizer has stepped.

        Returns:
            A line for `metrics.jsonl`, as JSON, on every process alike; None for no line. With the key `stop` (why)
            the run ends there as diverged, and `remedy` says what to try.
        """
        ...


def step_hooks(task: nn.Module) -> StepHooks | None:
    """The task as what has hooks; None if it has none."""
    return task if isinstance(task, StepHooks) else None
