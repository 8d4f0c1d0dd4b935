"""Tasks: training objectives. A task is a module whose `forward` maps a batch to named scalars, `loss` among them."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
