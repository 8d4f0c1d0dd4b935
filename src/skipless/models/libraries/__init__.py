"""Models of other libraries by name: which there are, and how they are made, registered, saved and loaded."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
