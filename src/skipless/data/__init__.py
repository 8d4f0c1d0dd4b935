"""Data: built-in image sets, folders and shards, and batches that any step of any run can ask for."""

from skipless.data.images import ImageConfig, ImageData, load_images
from skipless.data.loader import BatchedDataset, BatchKey, EvalLoader, Order, steps_per_epoch, train_batches
from skipless.data.workers import default_workers

__all__ = [
    "BatchKey",
    "BatchedDataset",
    "EvalLoader",
    "ImageConfig",
    "ImageData",
    "Order",
    "default_workers",
    "load_images",
    "steps_per_epoch",
    "train_batches",
]
