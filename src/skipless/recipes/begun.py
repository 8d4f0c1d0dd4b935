"""What a folder says of a run that it holds, before the run goes on."""

from pathlib import Path
from typing import Any


def is_begun(out: Path) -> bool:
    """Whether a folder holds a run that goes on, or is finished."""
    from skipless.training.run_folder.checkpoint import CHECKPOINT, PREVIOUS

    return any((out / name).exists() for name in (CHECKPOINT, PREVIOUS))


def recorded(out: Path, name: str) -> Any:
    """What the `run.json` of a folder says under a name; None where it does not say it."""
    from skipless.training.run_folder.atomic import read_json

    held: Any = read_json(out / "run.json")
    return held.get(name) if isinstance(held, dict) else None
