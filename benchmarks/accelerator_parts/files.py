"""Records as files, without torch: the process that starts the parts must not wait for a device that hangs."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def read(file: Path) -> dict[str, Any] | None:
    """A record; None if there is none that can be read."""
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def write(file: Path, values: dict[str, Any]) -> None:
    """Write a record whole: it never has another's half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(values, indent=1), encoding="utf-8")
    os.replace(new, file)
