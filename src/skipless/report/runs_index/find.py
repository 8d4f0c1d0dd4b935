"""Walk through a folder and tell runs, studies, measurements and reports by their files."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

RUN = "run.json"
OF_A_RUN = ("metrics.jsonl", "checkpoint.safetensors")  # where one of them lies, there was a run.json
STUDY = "result.json"
MEASUREMENT = "conditioning.json"


@dataclass
class Findings:
    """What a folder holds.

    Attributes:
        runs: folders with a `run.json`, or with other files that only runs have.
        studies: folders of `skipless eval`: a `result.json`, but no run.
        measurements: folders of `skipless measure`.
        reports: for each report of `skipless reproduce`, its name and its folder.
        unread: what could not be looked into, with the reason.
    """

    runs: list[Path] = field(default_factory=list)
    studies: list[Path] = field(default_factory=list)
    measurements: list[Path] = field(default_factory=list)
    reports: list[tuple[str, Path]] = field(default_factory=list)
    unread: list[tuple[Path, str]] = field(default_factory=list)


def find(root: Path, reports: Collection[str]) -> Findings:
    """Look through a folder at any depth. Links are followed; what several links lead to is told once.

    Args:
        root: the folder.
        reports: the reports' names, each of which writes a file `NAME.md`.
    """
    found = Findings()
    for folder, files in _folders(root, found.unread):
        if RUN in files or any(name in files for name in OF_A_RUN):
            found.runs.append(folder)
        elif STUDY in files:
            found.studies.append(folder)
        if MEASUREMENT in files:
            found.measurements.append(folder)
        found.reports += [(name, folder) for name in reports if f"{name}.md" in files]
    for places in (found.runs, found.studies, found.measurements):
        places.sort(key=os.fsencode)
    found.reports.sort(key=lambda one: (os.fsencode(one[1]), one[0]))
    found.unread.sort(key=lambda one: os.fsencode(one[0]))
    return found


def _folders(root: Path, unread: list[tuple[Path, str]]) -> Iterator[tuple[Path, set[str]]]:
    """Every folder below the root with the names of its files, by its own path where it has one and not by a link."""
    seen: set[tuple[int, int]] = set()
    linked: list[Path] = []
    waiting = [root]
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        try:
            at = folder.stat()
            if (at.st_dev, at.st_ino) in seen:
                continue
            seen.add((at.st_dev, at.st_ino))
            files, inner, links, broken = _entries(folder)
        except OSError as error:
            unread.append((folder, error.strerror or str(error)))
            continue
        waiting += inner
        linked += links
        unread += [(link, "a link that leads to nothing") for link in broken]
        yield folder, files


def _entries(folder: Path) -> tuple[set[str], list[Path], list[Path], list[Path]]:
    """The names of the files, and the paths of folders, links to folders, and links that lead to nothing."""
    files: set[str] = set()
    inner, links, broken = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                inner.append(path)
            elif not entry.is_symlink():
                files.add(entry.name)
            elif not path.exists():  # in a circle of links, too
                broken.append(path)
            elif entry.is_dir():
                links.append(path)
            else:
                files.add(entry.name)
    return files, sorted(inner), sorted(links), broken
