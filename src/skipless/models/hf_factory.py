"""Where models that were pickled by earlier versions look for the module that returns their logits."""

from skipless.models.libraries.hf_factory import ImageLogits

__all__ = ["ImageLogits"]
