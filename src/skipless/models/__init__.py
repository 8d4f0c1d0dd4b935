"""Vision transformers of other libraries: their blocks, the removal of their skips, and their initialisation."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
