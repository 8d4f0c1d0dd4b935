"""Processes of one start find each other in a store that is full of what earlier starts have left."""

import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from skipless.errors import InputError
from skipless.training.processes.rendezvous import agree_on_prefix


def start(store: HashStore, world: int, delays: tuple[float, ...] = ()) -> list[str]:
    """The names that the processes of one start agree on, each in a thread."""
    found: dict[int, str] = {}

    def agree(rank: int) -> None:
        found[rank] = agree_on_prefix(store, rank, world, timedelta(seconds=30))

    timers = [threading.Timer(delay, agree, [rank]) for rank, delay in zip(range(world), delays, strict=True)]
    for timer in timers:
        timer.start()
    for timer in timers:
        timer.join()
    return [found[rank] for rank in range(world)]


@pytest.mark.parametrize("delays", [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.1, 0.05)])
def test_every_start_agrees_on_a_name_of_its_own(delays: tuple[float, ...]) -> None:
    store, seen = HashStore(), set()
    for _ in range(3):
        names = start(store, 3, delays)
        assert len(set(names)) == 1
        assert names[0] not in seen
        seen.add(names[0])


def test_who_waits_in_vain_is_told() -> None:
    store = HashStore()
    start(store, 2, (0.0, 0.0))
    with pytest.raises(InputError, match="process 1 of 2 has not come"):
        agree_on_prefix(store, 0, 2, timedelta(seconds=0.1))
    with pytest.raises(InputError, match="the first process has not come"):
        agree_on_prefix(store, 1, 2, timedelta(seconds=0.1))
