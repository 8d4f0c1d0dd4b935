"""Data: built-in image sets and folders, and batches that any step of any run can ask for."""

from skipless.data.images import ImageConfig, ImageData, load_images
from skipless.data.loader import BatchedDataset, BatchKey, EvalLoader, Order, steps_per_epoch, train_batches

__all__ = [
    "BatchKey",
    "BatchedDataset",
    "EvalLoader",
    "ImageConfig",
    "ImageData",
    "Order",
    "load_images",
    "steps_per_epoch",
    "train_batches",
]
