"""Hooks of a task around an optimizer step: DINO updates its teacher, clips gradients and monitors collapse here."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer


@runtime_checkable
class StepHooks(Protocol):
    """The loop calls these three methods of a task at every optimizer step, counted from 0, if the task has them.

    A resumed run calls them for the remaining steps only. Their state must therefore be a function of the step, or be
    part of the task's `state_dict()`.

    A task that uses its modules outside its forward pass must get them from its attribute `whole`. This function maps a
    module to one with full, unsharded parameters. It is the identity until a loop that shards the task replaces it.
    """

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Called before the first forward pass of a step, after the learning rate is set."""
        ...

    def before_update(self, step: int) -> Mapping[str, Tensor]:
        """Called once all gradients are complete, unscaled, and clipped if `FitConfig.clip_norm` is set.

        Returns:
            Named scalars to log along with the task's outputs; the names must be the same at every step.
        """
        ...

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """Called after the optimizer has stepped.

        Returns:
            A JSON line for `metrics.jsonl`, the same on every process; None for no line. A key `stop`, whose value is
            the reason, ends the run as diverged; `remedy` then says what to try.
        """
        ...


def step_hooks(task: nn.Module) -> StepHooks | None:
    """Return the task itself if it has hooks, else None."""
    return task if isinstance(task, StepHooks) else None
