"""Collectives of the training loop, and clear errors when processes disagree or one is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from skipless.errors import InputError


def all_gather(fabric: Fabric, own: Tensor) -> Tensor:
    """Return every process's tensor, stacked by rank, on the CPU. All processes must call this together."""
    here = own.to(fabric.device)
    found = [torch.empty_like(here) for _ in range(fabric.world_size)]
    dist.all_gather(found, here)
    return torch.stack(found).cpu()


def check_same_step(fabric: Fabric, step: int, folder: str) -> None:
    """Check that every process resumes from the same step.

    Raises:
        InputError: on every process, if they read different checkpoints, because the folder is not shared.
    """
    if fabric.world_size == 1:
        return
    steps = all_gather(fabric, torch.tensor(step)).tolist()
    if len(set(steps)) > 1:
        seen = ", ".join("none" if found < 0 else str(found) for found in steps)
        raise InputError(
            f"the processes see different checkpoints in {folder!r} (steps, by process: {seen}): give an --out that "
            "all machines share"
        )


@contextmanager
def report_lost_processes(fabric: Fabric) -> Iterator[None]:
    """Turn a failed collective, which means that another process is gone, into a one-line error.

    Raises:
        InputError: if a process is lost. This one cannot continue alone; `torchrun --max-restarts` restarts all.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not _is_collective_error(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"process {fabric.global_rank} of {fabric.world_size} has lost the others ({reason}): one of them ended, "
            "see what it said; the same command goes on from the last checkpoint, and torchrun's --max-restarts gives "
            "it by itself"
        ) from error


def _is_collective_error(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
