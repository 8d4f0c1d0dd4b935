"""Rendezvous of the processes that `torchrun` starts or restarts.

torchrun's agent keeps one store over all restarts, with the addresses of processes that have died; restarted processes
then wait for them in vain (torch 2.15, gloo). Here every start agrees on a new prefix of the store.
"""

import atexit
import os
import time
import uuid
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from skipless.errors import InputError

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for the last process: machines start at different speeds
# For a collective. In a distributed evaluation one process may need an hour longer than another, and the default of
# torch, 10 minutes under NCCL, would end them all. torchrun notices at once when a process dies.
COLLECTIVE_TIMEOUT = timedelta(hours=2)
_POLL_SECONDS = 0.02


def init_process_group(backend: str) -> None:
    """Set up the process group under a new prefix of the agent's store; do nothing without such a store."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False, timeout=RENDEZVOUS_TIMEOUT
    )
    prefixed = PrefixStore(agree_on_prefix(store, rank, world), store)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else None
    dist.init_process_group(
        backend, store=prefixed, rank=rank, world_size=world, timeout=COLLECTIVE_TIMEOUT, device_id=device
    )
    atexit.register(_destroy_process_group)


def _destroy_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def agree_on_prefix(store: Store, rank: int, world: int, timeout: timedelta = RENDEZVOUS_TIMEOUT) -> str:
    """Agree with the other processes of this start on a prefix that no earlier start has used.

    The first process proposes a prefix. Every other process answers the proposal with a new name of its own, and the
    first process confirms every answer. A proposal that an earlier start left is never confirmed: its process is gone,
    and did not know the names of this start.

    Args:
        store: store of all processes, with whatever earlier starts left in it.
        rank: rank of this process.
        world: number of processes.
        timeout: how long to wait for the others.

    Raises:
        InputError: if a process does not come in time.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank == 0:
        store.set("skipless/first", own)
        for other in range(1, world):
            answer = f"skipless/{own}/{other}"
            while not store.check([answer]):
                _sleep(end, f"process {other} of {world}")
            store.set(f"skipless/{own}/{store.get(answer).decode()}", "confirmed")
        return own
    while True:
        if store.check(["skipless/first"]):
            proposed = store.get("skipless/first").decode()
            store.set(f"skipless/{proposed}/{rank}", own)
            if store.check([f"skipless/{proposed}/{own}"]):
                return proposed
        _sleep(end, "the first process")


def _sleep(end: float, whom: str) -> None:
    if time.monotonic() > end:
        raise InputError(f"{whom} has not come in time; start all of them with one torchrun command a machine")
    time.sleep(_POLL_SECONDS)
