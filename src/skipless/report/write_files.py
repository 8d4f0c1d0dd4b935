"""Report files: text, JSON and pictures, written atomically."""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from skipless.errors import InputError
from skipless.optional import how_to_install
from skipless.training.run_folder.atomic import replacing

_UNDECODED = re.compile("[\udc80-\udcff]")  # how Python keeps the bytes of a name that are no UTF-8


def drawing(module: str) -> ModuleType:
    """Import a module that needs matplotlib; call it before long work, so that a missing package shows early.

    Raises:
        InputError: if matplotlib is missing.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise InputError(f"the picture needs matplotlib: {how_to_install('matplotlib')}") from error


def write_files(out: Path, contents: Mapping[str, Any]) -> dict[str, Path]:
    """Write each content to the file of its name: bytes and text unchanged, everything else as JSON.

    Raises:
        InputError: if `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return {name: write_atomically(out / name, _bytes(content)) for name, content in contents.items()}
    except OSError as error:
        raise InputError(f"cannot write the report to {out} ({error.strerror}); choose another --out") from error


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=1, allow_nan=False) + "\n"
    return as_utf8(text)


def as_utf8(text: str) -> bytes:
    """A text as UTF-8; file names that are no UTF-8 are shown with escapes.

    Example:
        >>> as_utf8("runs/caf\\udce9")
        b'runs/caf\\\\xe9'
    """
    told = _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return told.encode("utf-8", errors="backslashreplace")


def write_atomically(path: Path, content: bytes) -> Path:
    """Replace `path` in one step, so that a reader never sees an incomplete file, whoever writes it besides."""
    # a run that starts in this folder removes what its own writes left there, by their suffix
    with replacing(path, suffix=".partial") as temporary:
        temporary.write_bytes(content)
    return path
