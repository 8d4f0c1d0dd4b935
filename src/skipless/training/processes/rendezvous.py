"""How the processes that `torchrun` starts find each other, also those that it starts again.

Its agent keeps one store through all restarts, and in it the addresses of processes that died: what starts next waits
for them in vain (torch 2.15, gloo). Here every start agrees on a corner of the store that nobody has used before.
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

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)  # for the last process to come; machines do not start alike
# For a collective: of an evaluation that is shared out, one process may have an hour more to do than another, and the
# limit of torch, 10 minutes under NCCL, would end them all. That a process has died, torchrun notices at once.
COLLECTIVE_TIMEOUT = timedelta(hours=2)
_POLL_SECONDS = 0.02  # seconds between two looks


def init_process_group(backend: str) -> None:
    """Set up the process group in a fresh corner of the agent's store; do nothing where there is no such store."""
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
    """A name that all processes of this start give, and no earlier start has given.

    The first process proposes a name, the others answer to it under names of their own, and it confirms every answer.
    What an earlier start has left is never confirmed: nobody who lives now has answered to it, and nobody who confirmed
    it knew the names of now.

    Args:
        store: shared by all, with whatever earlier starts left in it.
        rank: of this process.
        world: number of processes.
        patience: how long to wait for the others.

    Raises:
        InputError: if they do not come.
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
