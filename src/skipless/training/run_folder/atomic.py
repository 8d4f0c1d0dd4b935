"""Atomic writes: a file is either unchanged or complete, even if the process is killed while it writes."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from skipless.errors import InputError

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path, *, keep: Path | None = None, suffix: str = TEMPORARY_SUFFIX) -> Iterator[Path]:
    """Yield a new temporary path beside `path`; at the end of the context, that file replaces `path` atomically.

    The temporary name is of this call alone, so several processes may write the same file: the last one counts.

    Args:
        path: the file to replace or create.
        keep: where to move the old file; by default it is deleted.
        suffix: of the temporary name.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}{suffix}")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        yield temporary
        temporary.chmod(usual)  # safetensors makes its files private
        _fsync(temporary)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Like `replacing`, for the files of runs and studies.

    Raises:
        InputError: if the file cannot be written (no space, no permission). The old file is then unchanged.
    """
    try:
        with replacing(path, keep=keep) as temporary:
            try:
                yield temporary
            except (OSError, SafetensorError) as error:  # safetensors wraps OSError in its own error
                raise write_error(path, error, temporary) from error
    except OSError as error:
        raise write_error(path, error) from error


def create_writable_folder(folder: Path) -> Path:
    """Create a folder if it does not exist, and check that files can be written there, before any work is done.

    Raises:
        InputError: if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error
    return folder


def check_writable(folder: Path) -> None:
    """Check that a folder can be written, or made, before any work is done; whoever is cut off leaves none behind.

    Raises:
        InputError: if it cannot.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write to {str(folder)!r} ({error.strerror}); choose another --out")


def write_error(path: Path, error: Exception, written: Path | None = None) -> InputError:
    """Make the error for a file that could not be written, with the sizes that matter when the disk is full."""
    there = next(parent for parent in path.absolute().parents if parent.exists())  # the folder itself may be gone
    free = shutil.disk_usage(there).free
    so_far = f"{_megabytes(written.stat().st_size)} written, " if written is not None and written.exists() else ""
    return InputError(
        f"cannot write {str(path)!r} ({error}; {so_far}{_megabytes(free)} free); make room there, then give the same "
        "command again: it goes on from the last checkpoint"
    )


def write_json(path: Path, values: Any) -> None:
    """Write readable JSON atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; None if there is no such file.

    Raises:
        InputError: if it cannot be parsed.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is not readable JSON ({error}); remove it and give the command again"
        ) from error


def _fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
