"""The initialisation of section 5, in the paper's orientation (`x @ w`); it imports torch and jaxtyping alone."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
