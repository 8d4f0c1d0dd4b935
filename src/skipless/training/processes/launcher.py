"""Which launcher started this process, and as which of how many: only `torchrun` starts several that work together."""

import os
from collections.abc import Mapping

from skipless.errors import InputError

TORCHRUN = "TORCHELASTIC_RUN_ID"
# Each launcher's variable for the number of processes of its own that it has started. A job of Slurm's has SLURM_NTASKS
# as well, but no SLURM_STEP_NUM_TASKS unless srun started this process.
_WORLDS = {
    "WORLD_SIZE": "",
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "JSM_NAMESPACE_SIZE": "jsrun",
}
_RANKS = ("RANK", "LOCAL_RANK")


def started_by_torchrun() -> bool:
    """Tell whether `torchrun` started this process, alone or as one of several."""
    return TORCHRUN in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the world size: (0, 1) without `torchrun`. Known before `launch`.

    Raises:
        InputError: if `torchrun`'s variables are not numbers that fit each other.
    """
    if not started_by_torchrun():
        return 0, 1
    rank, world = (_number(os.environ, name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if not 0 <= rank < world:
        raise InputError(f"RANK={rank} of WORLD_SIZE={world} in the environment is none; {_unset(('RANK', TORCHRUN))}")
    return rank, world


def check_launcher() -> None:
    """Refuse variables of a launcher that would make this process one of several, unless it is `torchrun`.

    Such a process is either a leftover of another command, or one of several that would all write to one folder.
    The variables that a single process may have (RANK=0, WORLD_SIZE=1, MASTER_ADDR, SLURM_NTASKS) change nothing.

    Raises:
        InputError: if `torchrun` did not start this process, and a rank or a number of processes says that it is one
            of several; or if `torchrun`'s variables do not fit each other.
    """
    if started_by_torchrun():
        rank_and_world_size()
        return
    for name, launcher in _WORLDS.items():
        count = _number(os.environ, name, 1)
        if count > 1:
            began = f"{launcher} has started {count} of this command, which do not work together" if launcher else ""
            raise InputError(_refusal(name, began))
    for name in _RANKS:
        if _number(os.environ, name, 0) != 0:
            raise InputError(_refusal(name, ""))


def _refusal(name: str, began: str) -> str:
    value, what = os.environ[name], began or "torchrun did not start this process"
    return f"{name}={value} in the environment, but {what}: start several by torchrun; to run alone, {_unset((name,))}"


def _number(values: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(values.get(name) or default)
    except ValueError as error:
        raise InputError(f"{name}={values[name]!r} in the environment is no whole number; {_unset((name,))}") from error


def _unset(names: tuple[str, ...]) -> str:
    return f"`unset {' '.join(names)}` first"
