"""DINO's multi-crop augmentation, exact or fast; a batch has one tensor per crop."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
