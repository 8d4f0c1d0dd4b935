"""Text: documents from files, tokenised once into memory-mapped shards, and windows of them as batches."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
