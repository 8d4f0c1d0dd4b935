"""Where a study keeps what it computes: a folder for each set of settings, whole files, and a journal to go on from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from skipless.errors import InputError
from skipless.studies.names import file_name
from skipless.training.run_folder.atomic import atomic_write, write_json

JOURNAL = "journal"


class StudyFolder:
    """The folder of one study; its name ends in a hash of the settings, so that another setting has another folder.

    Attributes:
        path: the folder, made if need be.
        settings: everything that the numbers depend on, as JSON.
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
        """Write `result.json` and `table.md`; the process of rank 0 alone."""
        if process()[0] == 0:
            with atomic_write(self.path / "table.md") as temporary:
                temporary.write_text(table + "\n", encoding="utf-8")
            write_json(self.path / "result.json", {"settings": self.settings, **result})

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line to this process's journal: what is in it need not be computed again."""
        try:
            with (self.path / f"{JOURNAL}-{process()[0]}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write to {str(self.path)!r} ({error.strerror}); make room, then give the same command again"
            ) from error

    def notes(self) -> Iterator[dict[str, Any]]:
        """Every whole line of every process's journal; a line that was cut off is left out."""
        for file in sorted(self.path.glob(f"{JOURNAL}-*.jsonl")):
            lines = file.read_bytes().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                cut = sum(map(len, lines[:-1]))
                lines = lines[:-1]
                if file.name == f"{JOURNAL}-{process()[0]}.jsonl":
                    os.truncate(file, cut)
            yield from map(json.loads, lines)


def process() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Wait until every process is here."""
    if process()[1] > 1:
        dist.barrier()
