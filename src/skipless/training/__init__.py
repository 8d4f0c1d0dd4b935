"""Training: one loop, its checkpoints and its run folder."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
