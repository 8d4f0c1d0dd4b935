"""Evaluation shared out over processes: every image counts once, whatever the sizes."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from skipless.data import BatchKey, EvalLoader
from skipless.evaluators.classification import top1

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

PROCESSES = 3
SIZES = (1, 4, 7, 64, 65)


class Numbered:
    """Image i is a one-hot row, right for one half of the labels; labels are i modulo 7."""

    def __init__(self, count: int) -> None:
        self.images = torch.randn(count, 7, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, key: BatchKey) -> tuple[Tensor, Tensor]:
        return self.images[key.indices], key.indices % 7


def evaluated(count: int, batch_size: int) -> dict[str, float]:
    return top1(nn.Identity(), EvalLoader(Numbered(count), batch_size=batch_size))


def on_rank(rank: int, port: int, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES, timeout=timedelta(seconds=60))
    found = {count: evaluated(count, 5) for count in SIZES}
    results.put((rank, found))
    dist.barrier()
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def together(function: Callable[..., None]) -> dict[int, dict[int, dict[str, float]]]:
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    running = start_processes(function, (free_port(), results), nprocs=PROCESSES, join=False, start_method="fork")
    found = dict(results.get() for _ in range(PROCESSES))
    assert running is not None
    while not running.join():
        pass
    return found


def test_each_image_counts_once_and_every_process_has_the_whole_result() -> None:
    found = together(on_rank)
    for count in SIZES:
        alone = evaluated(count, 4)
        assert alone["n"] == count
        for rank in range(PROCESSES):
            assert found[rank][count] == pytest.approx(alone, rel=1e-6)
            assert found[rank][count]["top1"] == alone["top1"]  # a mean of the processes' means would differ at 7


@pytest.mark.parametrize("count", [*range(12)])
def test_shares_are_a_partition(count: int) -> None:
    shares = [EvalLoader(Numbered(count), batch_size=2, share=(rank, PROCESSES)) for rank in range(PROCESSES)]
    images = [images for share in shares for images, _ in share]
    seen = torch.cat(images) if images else torch.empty(0, 7)
    assert sorted(seen.tolist()) == sorted(Numbered(count).images.tolist())
