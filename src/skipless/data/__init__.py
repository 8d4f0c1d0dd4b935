"""Data: built-in image sets, folders and shards, and batches that any step of any run can ask for."""

from skipless.data.images import ImageConfig, ImageData, load_images, relabelled
from skipless.data.loader import BatchedDataset, BatchKey, EvalLoader, Order, steps_per_epoch, train_batches
from skipless.data.workers import count_workers, default_workers

__all__ = [
    "BatchKey",
    "BatchedDataset",
    "EvalLoader",
    "ImageConfig",
    "ImageData",
    "Order",
    "count_workers",
    "default_workers",
    "load_images",
    "relabelled",
    "steps_per_epoch",
    "train_batches",
]
