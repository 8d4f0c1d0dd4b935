"""The output folder of a study: one folder for each combination of settings, with a journal to resume from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist

from skipless.choices import ModelState
from skipless.errors import InputError
from skipless.studies.formatting import MAX_NAME, file_name
from skipless.training.run_folder.atomic import atomic_write, write_json

JOURNAL = "journal"
SETTINGS = "settings.json"
_DIGITS = (8, 16, 64)  # of the settings' hash in a folder's name: as few as tell it from the folders that are there
_LETTERS = 100  # of a name that an earlier version kept for pictures


class StudyFolder:
    """The folder of one study.

    Its name says the study, the data set and whose weights were measured, and ends in a hash of the settings. Different
    settings thus have different folders. A folder of the same settings that lies there under a name of before is used,
    but none whose name says that other weights were measured.

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
        state: ModelState | Literal["compared"] | None = None,
        before: str | None = None,
    ):
        """Find the folder, or create it.

        Args:
            home: parent of the folder.
            name: the study and its data set, `knn-digits`.
            settings: everything that the scores depend on.
            state: whose weights are measured, or that those of several models are compared; None leaves it out.
            before: what an earlier version called the study and its data set, where that was another name.
        """
        self.settings = json.loads(json.dumps(settings, default=str))
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self.identity = f"{_uncut(before or name)}-{digest[: _DIGITS[0]]}"
        self.path = _place(home, _stems(name, before or name, state), digest, self.settings)
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

    def kept(self) -> dict[str, Any] | None:
        """What `finish` has written for these settings; None where nothing is there that can be read."""
        try:
            held = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return held if isinstance(held, dict) and held.get("settings") == self.settings else None

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


def _stems(name: str, before: str, state: str | None) -> list[str]:
    """What a folder of these settings may be called before its hash, the right one first."""
    cuts = [file_name(name), _uncut(name), _uncut(name[:_LETTERS])]  # today's, and those of earlier versions
    said = [f"{one}-{state}" for one in cuts] if state else []
    return list(dict.fromkeys([*said, *cuts, _uncut(before)]))


def _uncut(text: str) -> str:
    return file_name(text, len(text.encode(errors="replace")) + 1)


def _place(home: Path, stems: list[str], digest: str, settings: Any) -> Path:
    """The folder that holds these settings, or that none has taken.

    One that says that it is of these settings comes before one that says nothing, as those of earlier versions.
    """
    places: list[Path] = []
    for digits in _DIGITS:
        names = [f"{stem}-{digest[:digits]}" for stem in stems]
        places = [home / name for name in names if len(name.encode()) <= MAX_NAME]
        held = {place: _settings_of(place) for place in places if place.is_dir()}
        for wanted in (settings, None):
            if (found := next((place for place, values in held.items() if values == wanted), None)) is not None:
                return found
        if not places[0].exists():
            return places[0]
    return places[0]


def _settings_of(folder: Path) -> Any:
    """The settings that a folder is of; None where no file of it says them, False where none can be read."""
    there = False
    for file, part in ((folder / SETTINGS, None), (folder / "result.json", "settings")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(found := values if part is None else values[part], dict):
                return found
            there = True
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            there = True
    return False if there else None


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def barrier() -> None:
    """Wait until all processes reach this point."""
    if rank_and_world_size()[1] > 1:
        dist.barrier()
