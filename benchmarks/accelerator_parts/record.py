"""What a part has found: rows of samples in a JSON file that is whole at every moment: a time limit loses none."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from accelerator_parts.files import read, write

Samples = list[float]


class Record:
    """The rows of one part. Those that an earlier run has written stay, and are not measured again.

    Args:
        file: where they are kept.
        device: where it is measured.
        seconds: how long this part may take.
        folder: for files that the part needs; beside the record if none is given.
        minutes: how long all parts together may take.
    """

    def __init__(
        self, file: Path, device: torch.device, seconds: float, *, folder: Path | None = None, minutes: float = 1.0
    ) -> None:
        self.file, self.device, self.end = file, device, time.monotonic() + seconds
        self.folder, self.minutes = folder or file.parent, minutes
        self.values = {**(read(file) or {"rows": []}), "notes": [], "status": "unfinished"}
        self.incomplete = False
        self._write()

    @property
    def tiny(self) -> bool:
        """Whether sizes are those of a check on a CPU, which say nothing about speed."""
        return self.device.type == "cpu"

    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def row(self, what: str, unit: str, measure: Callable[[], Samples], note: str = "") -> None:
        """Measure one thing, unless it is there already. What fails is noted, and the part goes on."""
        if any(row["what"] == what for row in self.values["rows"]):
            return
        try:
            samples = measure()
        except Exception as error:  # a crash of one contender must not cost the others
            said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            self.note(f"{what}: failed, {said}")
            samples = []
        if samples:
            self.values["rows"].append({"what": what, "unit": unit, "samples": samples, "note": note})
            self._write()

    def samples(self, what: str) -> Samples:
        """The samples of a row; empty if there is none."""
        return next((row["samples"] for row in self.values["rows"] if row["what"] == what), [])

    def ratio(self, what: str, above: str, below: str) -> None:
        """A row of quotients, sample by sample, of two rows that took turns."""
        pairs = list(zip(self.samples(above), self.samples(below), strict=False))
        if pairs:
            self.row(what, "ratio", lambda: [one / other for one, other in pairs])

    def note(self, text: str) -> None:
        """Say something below the table."""
        if text not in self.values["notes"]:
            self.values["notes"].append(text)
            self._write()

    def cut(self, text: str) -> None:
        """Say what there was no time for: the next call goes on with it."""
        self.incomplete = True
        self.note(text)

    def finish(self) -> None:
        """Say that there is nothing left to do, unless there is."""
        self.values["status"] = "unfinished" if self.incomplete else "done"
        self._write()

    def _write(self) -> None:
        write(self.file, self.values)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has done it."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def repeated(call: Callable[[], object], record: Record, *, times: int, warm: int = 1, seconds: float) -> Samples:
    """Seconds of several calls after some to warm up: as many as the time allows, at least one."""
    for _ in range(warm):
        call()
    end = time.monotonic() + min(seconds, max(record.left(), 0))
    found = [timed(call, record.device)]
    while len(found) < times and time.monotonic() < end:
        found.append(timed(call, record.device))
    return found
