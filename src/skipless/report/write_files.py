"""Report files: text, JSON and pictures, written atomically."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from skipless.errors import InputError
from skipless.optional import how_to_install


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
    return text.encode()


def write_atomically(path: Path, content: bytes) -> Path:
    """Replace `path` in one step, so that a reader never sees an incomplete file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
