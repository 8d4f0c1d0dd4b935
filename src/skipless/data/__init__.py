"""Data: built-in image sets, folders and shards, and batches that any step of any run can ask for."""

from skipless.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
