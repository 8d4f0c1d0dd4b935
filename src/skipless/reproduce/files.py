"""Reports as files: text, JSON and pictures, each written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from skipless.errors import InputError
from skipless.report.write import write_whole


def load_figures() -> ModuleType:
    """The module that draws.

    Raises:
        InputError: if matplotlib is missing.
    """
    try:
        from skipless.report import conditioning_figures  # noqa: PLC0415 - matplotlib is optional
    except ModuleNotFoundError as error:
        raise InputError("the picture needs matplotlib; install it with: pip install 'skipless[demo]'") from error
    return conditioning_figures


def write_files(out: Path, contents: Mapping[str, Any]) -> dict[str, Path]:
    """Write each content under its name: bytes and text as they are, anything else as JSON.

    Raises:
        InputError: if `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return {name: write_whole(out / name, _bytes(content)) for name, content in contents.items()}
    except OSError as error:
        raise InputError(f"cannot write the report to {out} ({error.strerror}); choose another --out") from error


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    text = content if isinstance(content, str) else json.dumps(content, indent=1, allow_nan=False) + "\n"
    return text.encode()
