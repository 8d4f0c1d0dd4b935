"""The output folder of a study: one folder for each combination of settings, with a journal to resume from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import torch.distributed as dist

from skipless.choices import ModelState
from skipless.errors import InputError
from skipless.studies.formatting import file_name
from skipless.training.run_folder.atomic import atomic_write, write_json

JOURNAL = "journal"
SETTINGS = "settings.json"
_DIGITS = (8, 16, 64)  # of the settings' hash in a folder's name: as few as tell it from the folders that are there


class StudyFolder:
    """The folder of one study.

    Its name says the study, the data set and whose weights were measured, and ends in a hash of the settings. Different
    settings thus have different folders. A folder of the same settings that lies there under a name of before is used.

    Attributes:
        path: the folder, created if it does not exist.
        settings: everything that the scores depend on, as JSON values.
        identity: a name for these settings that never changes, by which other studies may depend on this folder.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        settings: Mapping[str, Any],
        *,
        state: ModelState | None = None,
        before: str | None = None,
    ):
        """Find the folder, or create it.

        Args:
            home: parent of the folder.
            name: the study and its data set, `knn-digits`.
            settings: everything that the scores depend on.
            state: whose weights are measured; None leaves it out of the name.
            before: what an earlier version called the study and its data set, where that was another name.
        """
        self.settings = json.loads(json.dumps(settings, default=str))
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        earlier = file_name(before or name)
        self.identity = f"{earlier}-{digest[: _DIGITS[0]]}"
        self.path = _place(home, _stems(file_name(name), earlier, state), digest, self.settings)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {str(self.path)!r} ({error.strerror}); choose another --out") from error
        if rank_and_world_size()[0] == 0 and not (self.path / SETTINGS).exists():
            write_json(self.path / SETTINGS, self.settings)

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


def _stems(name: str, earlier: str, state: ModelState | None) -> list[str]:
    """What a folder of these settings may be called before its hash, the right one first."""
    states = dict.fromkeys((state, None, *get_args(ModelState)))
    return list(dict.fromkeys([*(name if one is None else f"{name}-{one}" for one in states), earlier]))


def _place(home: Path, stems: list[str], digest: str, settings: Any) -> Path:
    """The folder that holds these settings, or that none has taken."""
    places: list[Path] = []
    for digits in _DIGITS:
        places = [home / f"{stem}-{digest[:digits]}" for stem in stems]
        held = next((place for place in places if place.is_dir() and _settings_of(place) in (None, settings)), None)
        if held is not None:
            return held
        if not places[0].exists():
            return places[0]
    return places[0]


def _settings_of(folder: Path) -> Any:
    """The settings that a folder is of; None where it does not say."""
    for file, part in ((folder / SETTINGS, None), (folder / "result.json", "settings")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            return values if part is None else values[part]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def barrier() -> None:
    """Wait until all processes reach this point."""
    if rank_and_world_size()[1] > 1:
        dist.barrier()
