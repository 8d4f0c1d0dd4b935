"""Data: built-in image sets, folders and shards, and batches that are a function of the step."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
