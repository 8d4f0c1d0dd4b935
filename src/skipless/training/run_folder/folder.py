"""RunFolder: `run.json` (what was asked for), `metrics.jsonl` (logged metrics), `result.json` (the result)."""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from skipless.errors import InputError
from skipless.training.run_folder.atomic import TEMPORARY_SUFFIX, atomic_write, read_json, write_error, write_json

METRICS = "metrics.jsonl"

_locks: set[int] = set()  # a forked worker must close these: else it would hold the lock of a killed run


def _close_locks() -> None:
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_close_locks)


class RunFolder:
    """The files of one run, and a lock that excludes a second process.

    Args:
        path: the folder; created if it does not exist.
        writes: False in all processes of a distributed run but one. They neither lock nor write.

    Raises:
        InputError: on entering, if the folder cannot be created or another process uses it.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self._lock: int | None = None
        self._logs: dict[str, FileIO] = {}

    def __enter__(self) -> "RunFolder":
        if self.writes:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise InputError(
                    f"cannot use {str(self.path)!r} as a run folder ({error}); give another --out"
                ) from error
            self._take_lock(self._lock)
            for leftover in self.path.glob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        if self._lock is not None:
            _locks.discard(self._lock)
            os.close(self._lock)
            self._lock = None

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 32).decode().strip() or "unknown"
            os.close(lock)
            self._lock = None
            raise InputError(
                f"another process (pid {owner}) trains in {str(self.path)!r}; wait for it, or give another --out"
            ) from error
        _locks.add(lock)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())

    def read(self, name: str) -> Any:
        """Read one of the JSON files; None if it does not exist."""
        held = read_json(self.path / name)
        if not (held is None or isinstance(held, dict)):
            raise InputError(
                f"{str(self.path / name)!r} holds {type(held).__name__}, not an object: it is damaged; move it away "
                "and give the command again"
            )
        return held

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write one of the JSON files."""
        if self.writes:
            write_json(self.path / name, values)

    def open_log(self, step: int, name: str = METRICS) -> None:
        """Open a file of JSON lines for appending, and drop the lines of steps after `step`, which are taken again.

        A line that is incomplete because the process was killed is dropped, too.
        """
        if not self.writes:
            return
        path = self.path / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _is_logged_by(step, line)), encoding="utf-8")
        self._logs[name] = path.open("ab", buffering=0)

    def log(self, line: Mapping[str, Any], name: str = METRICS) -> None:
        """Append one line to an opened file. A line that was logged survives if the process is killed.

        Raises:
            InputError: if the disk is full.
        """
        if name not in self._logs:
            return
        try:
            _write_fully(self._logs[name], f"{json.dumps(line)}\n".encode())
        except OSError as error:
            raise write_error(self.path / name, error) from error


def _write_fully(file: FileIO, text: bytes) -> None:
    if file.write(text) < len(text):  # an unbuffered file does not raise when the disk is full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_logged_by(step: int, line: str) -> bool:
    """Tell whether a line is complete and belongs to this step or an earlier one."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
