"""Loading batches: their order, the worker processes, and the handling of unreadable images."""
