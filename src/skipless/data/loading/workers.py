"""The number of worker processes of a data loader."""

import os

from skipless.data.loading.loader import BatchedDataset
from skipless.data.memory import MemoryImages
from skipless.data.text.windows import TextWindows

MAX_WORKERS = 16  # at 6 ms an image (docs/data.md) they load 2,700 images/s, more than a GPU trains on


def count_workers(asked: int | None, dataset: BatchedDataset) -> int:
    """Return `asked`, or `default_workers` if it is None."""
    return default_workers(dataset) if asked is None else asked


def default_workers(dataset: BatchedDataset) -> int:
    """Return the number of workers that keep the cores busy: 0 for images in memory and text, else one a core.

    The cores are those that the process may run on (its affinity), divided by the number of processes that `torchrun`
    has started on the machine. There are at most `MAX_WORKERS`.

    Example:
        >>> from skipless.data import ImageConfig, load_images
        >>> default_workers(load_images(ImageConfig("digits")).train)
        0
    """
    if isinstance(dataset, MemoryImages | TextWindows):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // max(_local_processes(), 1), 1), MAX_WORKERS)


def _local_processes() -> int:
    stated = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(stated) if stated.isdigit() else 1
