"""Multi-crop augmentation for self-supervision: DINO's, exact or fast, one stack of tensors per crop."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
