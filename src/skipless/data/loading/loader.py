"""Batches whose order and augmentation depend only on (seed, epoch, sample).

torch's DataLoader loads them. Its batch sampler, `Order`, knows the batch of every step without the ones before. A
resumed run therefore gets the same batches as an uninterrupted one, with any number of workers.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader

from skipless.data.loading.corrupt import CorruptLog, Unreadable
from skipless.data.loading.seeding import derive_seed
from skipless.data.loading.steps import steps_per_epoch
from skipless.errors import InputError


class BatchKey(NamedTuple):
    """The samples of a batch, and what seeds their augmentation.

    Attributes:
        seed: seed of the run.
        epoch: epoch, counted from 0.
        indices: indices of the samples in the data set.
    """

    seed: int
    epoch: int
    indices: Int64[Tensor, " b"]


@runtime_checkable
class BatchedDataset(Protocol):
    """A data set that returns batches. Its randomness must be a function of (seed, epoch, index)."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitems__(self, key: BatchKey, /) -> Any:
        """Return one collated batch: the positional arguments of the task's `forward`."""
        ...


@runtime_checkable
class TolerantDataset(BatchedDataset, Protocol):
    """A data set that can replace unreadable samples by others.

    Attributes:
        corrupt_limit: number of samples that may be unreadable.
    """

    corrupt_limit: int

    def fetch(self, key: BatchKey, /) -> tuple[Any, tuple[Unreadable, ...]]:
        """Return one collated batch, and the samples of it that could not be read."""
        ...


@dataclass(frozen=True)
class Order:
    """Batch sampler of training, without end: the batch of a step is a pure function of the seed and the step.

    Attributes:
        samples: size of the training set.
        batch_size: samples of one optimizer step, over all processes and micro-batches.
        seed: seed of the run.
        start_step: the first step; skipping the earlier ones costs nothing.
        accumulation: micro-batches that each process splits its part of a batch into.
        rank: rank of this process.
        world_size: number of processes.

    Example:
        >>> first = next(iter(Order(samples=8, batch_size=4, seed=0, start_step=3)))
        >>> first.epoch, len(first.indices)
        (1, 4)
    """

    samples: int
    batch_size: int
    seed: int
    start_step: int = 0
    accumulation: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % (self.accumulation * self.world_size):
            raise InputError(
                f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation} x processes "
                f"{self.world_size}; change one of them"
            )

    def __iter__(self) -> Iterator[BatchKey]:
        """Yield this process's micro-batches, step after step, without end."""
        per_epoch = steps_per_epoch(self.samples, self.batch_size)
        epoch, first = divmod(self.start_step, per_epoch)
        while True:
            order = epoch_order(self.samples, self.seed, epoch)
            for step in range(first, per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                for indices in batch[self.rank :: self.world_size].chunk(self.accumulation):
                    yield BatchKey(self.seed, epoch, indices)
            epoch, first = epoch + 1, 0


def epoch_order(samples: int, seed: int, epoch: int) -> Int64[Tensor, " n"]:
    """Return the permutation of one epoch."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive_seed(seed, "order", epoch)))


def train_batches(
    dataset: BatchedDataset,
    order: Order,
    *,
    workers: int = 0,
    pin_memory: bool = False,
    corrupt_log: Path | None = None,
    on_corrupt: Callable[[str], None] | None = None,
) -> Generator[Any, None, None]:
    """Yield the batches of an order, without end; the workers live as long as the iterator.

    Args:
        dataset: the training set. Unreadable samples of a `TolerantDataset` are replaced, up to its limit.
        order: the samples of every batch.
        workers: number of worker processes; 0 loads in this process.
        pin_memory: put batches in page-locked memory, for a GPU.
        corrupt_log: file that lists the unreadable images of a run; see `CorruptLog`.
        on_corrupt: called with a line for the user about each of them.

    Raises:
        InputError: if a sample cannot be used, or too many are unreadable, in this process or in a worker.
    """
    limit = dataset.corrupt_limit if isinstance(dataset, TolerantDataset) else 0
    log = CorruptLog(limit, len(dataset), corrupt_log, on_corrupt)
    for batch, unreadable in _load_batches(
        _ErrorCatchingDataset(dataset, substitutes=True), order, workers, pin_memory
    ):
        log.add(unreadable)
        yield batch


@dataclass(frozen=True)
class EvalLoader:
    """Loads every sample once, in order, without random augmentation; it can be iterated any number of times.

    Attributes:
        dataset: the data set.
        batch_size: batch size of each process; the last batch may be smaller.
        workers: number of worker processes; 0 loads in this process.
        share: (rank, world size): this process loads samples rank, rank + world size, ... None takes both from
            torch.distributed; a single process then loads all samples.
        pin_memory: put batches in page-locked memory, for a GPU.
    """

    dataset: BatchedDataset
    batch_size: int = 256
    workers: int = 0
    share: tuple[int, int] | None = None
    pin_memory: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one pass; a process without samples gets one empty batch, which has the shapes."""
        rank, processes = self.share or _rank_and_world_size()
        indices = torch.arange(len(self.dataset))[rank::processes]
        keys = [BatchKey(0, 0, chunk) for chunk in indices.split(self.batch_size)]
        fetched = _load_batches(
            _ErrorCatchingDataset(self.dataset, substitutes=False), keys, self.workers, self.pin_memory
        )
        return (batch for batch, _ in fetched)


def _rank_and_world_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


class _Failure(NamedTuple):
    """The message of an InputError in a worker; DataLoader would bury it in the worker's traceback."""

    message: str


class _Fetched(NamedTuple):
    batch: Any
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class _ErrorCatchingDataset:
    dataset: BatchedDataset
    substitutes: bool

    def __getitems__(self, key: BatchKey) -> _Fetched | _Failure:
        try:
            if self.substitutes and isinstance(self.dataset, TolerantDataset):
                return _Fetched(*self.dataset.fetch(key))
            return _Fetched(self.dataset.__getitems__(key), ())
        except InputError as error:
            return _Failure(str(error))


def _load_batches(
    dataset: _ErrorCatchingDataset, keys: Any, workers: int, pin_memory: bool
) -> Generator[_Fetched, None, None]:
    loader = DataLoader(
        dataset,  # pyright: ignore[reportArgumentType] (DataLoader needs __getitems__ alone)
        batch_sampler=keys,
        collate_fn=_identity,
        num_workers=workers,
        worker_init_fn=_ignore_sigint if workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else DataLoader draws a base seed from the global generator
    )
    for fetched in loader:
        if isinstance(fetched, _Failure):
            raise InputError(fetched.message)
        yield fetched


def _identity(batch: Any) -> Any:
    return batch


def _ignore_sigint(worker: int) -> None:
    """Ignore Ctrl-C, which reaches all processes: the loop needs its workers until the checkpoint is written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
