"""Where models that were pickled by earlier versions look for their blocks."""

from skipless.models.adapters.timm_vit import SkiplessBlock

__all__ = ["SkiplessBlock"]
