"""Tasks: what is optimised. A task is a module: `forward` takes a batch and returns named scalars, `loss` too."""

from skipless.tasks.supervised import IMAGENET_TARGETS, Supervised, SupervisedConfig

__all__ = ["IMAGENET_TARGETS", "Supervised", "SupervisedConfig"]
