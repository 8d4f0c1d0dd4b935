"""Section 5 as tensor maths, in the paper's orientation (`x @ w`); its modules import torch and jaxtyping alone."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
