"""DINO (Caron et al. 2021): the task, its head and loss, collapse monitoring, and the published checkpoints."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
