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

PATIENCE = timedelta(minutes=10)  # for the last process to come; machines do not start alike
# For a collective: of an evaluation that is shared out, one process may have an hour more to do than another, and the
# limit of torch, 10 minutes under NCCL, would end them all. That a process has died, torchrun notices at once.
LONGEST_WAIT = timedelta(hours=2)
_PAUSE = 0.02  # seconds between two looks


def join(backend: str) -> None:
    """Set up the process group in a fresh corner of the agent's store; do nothing where there is no such store."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False, timeout=PATIENCE
    )
    corner = PrefixStore(agreed_name(store, rank, world), store)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if backend == "nccl" else None
    dist.init_process_group(backend, store=corner, rank=rank, world_size=world, timeout=LONGEST_WAIT, device_id=device)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def agreed_name(store: Store, rank: int, world: int, patience: timedelta = PATIENCE) -> str:
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
    own, end = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    if rank == 0:
        store.set("skipless/first", own)
        for other in range(1, world):
            answer = f"skipless/{own}/{other}"
            while not store.check([answer]):
                _pause(end, f"process {other} of {world}")
            store.set(f"skipless/{own}/{store.get(answer).decode()}", "confirmed")
        return own
    while True:
        if store.check(["skipless/first"]):
            proposed = store.get("skipless/first").decode()
            store.set(f"skipless/{proposed}/{rank}", own)
            if store.check([f"skipless/{proposed}/{own}"]):
                return proposed
        _pause(end, "the first process")


def _pause(end: float, whom: str) -> None:
    if time.monotonic() > end:
        raise InputError(f"{whom} has not come in time; start all of them with one torchrun command a machine")
    time.sleep(_PAUSE)
