"""What can be told of a run folder from outside: whether a process trains there, whether its checkpoint is whole."""

import json
import os
from pathlib import Path

LOCKS = Path("/proc/locks")  # Linux: who holds which file; looking there disturbs no run that is about to start


def held_by_a_process(lock: Path) -> bool:
    """Whether a process of this machine holds a run's lock; False as well where that cannot be known."""
    try:
        at, owner = lock.stat(), lock.read_text(encoding="ascii", errors="replace").strip()
        held = LOCKS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(at.st_dev):02x}:{os.minor(at.st_dev):02x}:{at.st_ino}"
    for line in held:
        words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 08:01:123456 0 EOF
        if len(words) < 6 or words[1] != "FLOCK":
            continue
        same_file = words[5].rpartition(":")[2] == str(at.st_ino)
        if same_file and (words[5] == device or words[4] == owner):  # some file systems give another device here
            return True
    return False


def damaged_checkpoint(folder: Path) -> str:
    """What is wrong with a run's checkpoint by its size and header; empty where nothing is, or there is none."""
    file, before = folder / "checkpoint.safetensors", folder / "checkpoint-previous.safetensors"
    if not file.is_file() or _is_whole(file):
        return ""
    saved = "; the one before it is whole" if before.is_file() and _is_whole(before) else ""
    return f"{file.name} is cut short{saved}"


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, JSON, then the tensors."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > size:
                return False
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return False
    return size == 8 + length + max(ends, default=0)
