"""Planning: time and memory of a run before it starts, and the bottleneck of one that runs."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
