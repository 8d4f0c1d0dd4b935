"""Processes as `torchrun` starts them, but forked: a rank costs no import of torch, so that hundreds can be killed."""

import faulthandler
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import skipless
from skipless.errors import InputError

TIMEOUT = 600.0  # seconds after which a rank hangs: its machine may be busy with other things


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells its workers on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "forked",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(world: int, body: Callable[[int], object], log: Path | None = None) -> list[int]:
    """Fork `world` ranks that call `body(rank)` and end; one rank alone is no distributed run.

    Their exit codes are those of the command line: 2 for an `InputError`, 1 for anything unforeseen.
    """
    port = free_port() if world > 1 else 0
    sys.stdout.flush()
    sys.stderr.flush()
    return [_fork(rank, world, port, body, log) for rank in range(world)]


def _fork(rank: int, world: int, port: int, body: Callable[[int], object], log: Path | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if log is not None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115 (pytest's capture is its parent's)
            faulthandler.enable(sys.stderr)
        if world > 1:
            os.environ.update(environment(rank, world, port))
        body(rank)
        code = 0
    except InputError as error:
        print(f"rank {rank}: {error}", file=sys.stderr)
        code = 2
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pids: Sequence[int], timeout: float = TIMEOUT) -> list[int]:
    """Give the exit codes (negative: the signal) once all have ended.

    Raises:
        TimeoutError: where they have not; they are killed then.
    """
    codes: dict[int, int] = {}
    end = time.monotonic() + timeout
    while len(codes) < len(pids):
        _collect(pids, codes)
        if time.monotonic() > end:
            for pid in set(pids) - codes.keys():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise TimeoutError(f"{len(set(pids) - codes.keys())} of {len(pids)} ranks hang after {timeout:.0f} s")
        time.sleep(0.001)
    return [codes[pid] for pid in pids]


def end_group(pids: Sequence[int], patience: float = 30.0) -> tuple[list[int], int]:
    """What torchrun's agent does once a rank has died: SIGTERM to the others, and SIGKILL to those that hang.

    Returns:
        The exit codes, and how many had to be killed.
    """
    codes: dict[int, int] = {}
    end, asked, killed = time.monotonic() + patience, False, 0
    while len(codes) < len(pids):
        _collect(pids, codes)
        left = set(pids) - codes.keys()
        if left and not asked:
            asked = True
            for pid in left:
                os.kill(pid, signal.SIGTERM)
        if left and time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            killed, end = len(left), time.monotonic() + patience
        time.sleep(0.001)
    return [codes[pid] for pid in pids], killed


def _collect(pids: Sequence[int], codes: dict[int, int]) -> None:
    for pid in set(pids) - codes.keys():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            codes[pid] = os.waitstatus_to_exitcode(status)


def run(world: int, body: Callable[[int], object], log: Path) -> None:
    """Run ranks to their end, which must be a good one."""
    codes = wait(start(world, body, log))
    assert codes == [0] * world, f"exit codes {codes}: {log.read_text()[-3000:]}"


def run_apart(world: int, body: Callable[[int], object], log: Path) -> None:
    """Run ranks that are forked from a fresh process, which has computed nothing and has one thread.

    What a process that has run a thousand tests leaves to its forks (threads that are gone in the midst of something)
    is no part of a distributed run, and gloo's own threads have been seen to die of it.

    Args:
        world: number of ranks.
        body: something that can be pickled, of a module that can be imported.
        log: of all ranks.
    """
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join(
        (str(tests.parent), str(tests), str(Path(skipless.__file__).parents[1]))
    )  # of this checkout
    done = subprocess.run(
        [sys.executable, "-m", "faults.ranks", str(world), str(log)],
        input=pickle.dumps(body), env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, timeout=2 * TIMEOUT, check=False,
    )  # fmt: skip
    told = log.read_text()[-5000:] if log.exists() else ""
    assert done.returncode == 0, f"{done.stderr.decode()[-3000:]}\n{told}"


def import_what_ranks_use() -> None:
    """Import what each rank would import for itself, in two seconds: an optimizer's first step imports `_dynamo`."""
    import torch._dynamo
    import torch.distributed.checkpoint.state_dict
    import torch.distributed.fsdp
    import torch.distributed.tensor  # noqa: F401


def _main() -> None:
    import conftest  # noqa: F401 (checks shapes here, too)
    import torch

    torch.set_num_threads(1)
    import_what_ranks_use()
    world, log = int(sys.argv[1]), Path(sys.argv[2])
    run(world, pickle.load(sys.stdin.buffer), log)


if __name__ == "__main__":
    _main()
