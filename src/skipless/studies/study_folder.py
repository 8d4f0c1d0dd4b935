"""The output folder of a study: one folder for each combination of settings, with a journal to resume from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from skipless.errors import InputError
from skipless.studies.formatting import file_name
from skipless.training.run_folder.atomic import atomic_write, write_json

JOURNAL = "journal"


class StudyFolder:
    """The folder of one study. Its name ends in a hash of the settings, so different settings have different folders.

    Attributes:
        path: the folder, created if it does not exist.
        settings: everything that the scores depend on, as JSON values.
    """

    def __init__(self, home: Path, name: str, settings: Mapping[str, Any]):
        self.settings = json.loads(json.dumps(settings, default=str))
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:8]
        self.path = home / f"{file_name(name)}-{digest}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {str(self.path)!r} ({error.strerror}); choose another --out") from error

    def finish(self, result: Mapping[str, Any], table: str) -> None:
        """Write `result.json` and `table.md`, on rank 0 only."""
        if rank_and_world_size()[0] == 0:
            with atomic_write(self.path / "table.md") as temporary:
                temporary.write_text(
                    table + "\n", encoding="utf-8", errors="backslashreplace"
                )  # file names may be no UTF-8
            write_json(self.path / "result.json", {"settings": self.settings, **result})

    def append_journal(self, line: Mapping[str, Any]) -> None:
        """Append a line to this process's journal, so that it need not be computed again."""
        try:
            with (self.path / f"{JOURNAL}-{rank_and_world_size()[0]}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write to {str(self.path)!r} ({error.strerror}); make room, then give the same command again"
            ) from error

    def read_journal(self) -> Iterator[dict[str, Any]]:
        """Every complete line of every process's journal; an incomplete last line is dropped."""
        for file in sorted(self.path.glob(f"{JOURNAL}-*.jsonl")):
            lines = file.read_bytes().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                cut = sum(map(len, lines[:-1]))
                lines = lines[:-1]
                if file.name == f"{JOURNAL}-{rank_and_world_size()[0]}.jsonl":
                    os.truncate(file, cut)
            yield from map(json.loads, lines)


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def barrier() -> None:
    """Wait until all processes reach this point."""
    if rank_and_world_size()[1] > 1:
        dist.barrier()
