"""Reading files of dense data sets, with errors that name the file."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from skipless.data.folder import read_image
from skipless.errors import InputError

# Exceptions of Pillow's decoders on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)


class UnreadableItem(InputError):
    """An image, mask or annotation cannot be used; a long evaluation may record it and continue.

    Attributes:
        path: the file.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)  # the message alone, so that the exception can be pickled by a worker
        self.path = path


def read_rgb(file: Path) -> Image.Image:
    """Decode an image of any mode to RGB.

    Raises:
        UnreadableItem: if it is missing or corrupt.
    """
    try:
        return read_image(file)
    except InputError as error:
        raise UnreadableItem(str(error), file) from error


def read_index_mask(file: Path) -> UInt8[np.ndarray, "h w"]:
    """Read a mask whose pixels are ids: a palette PNG (its colours are not used), or a grey one.

    Raises:
        UnreadableItem: if the file is missing, corrupt, or has colours in place of ids.
    """
    return _read_pixels(file, ("P", "L"), "ids (a palette or grey 8-bit PNG)")


def read_colour_mask(file: Path) -> UInt16[np.ndarray, "h w"]:
    """Read a mask of ADE20K's full release: the id is red // 10 * 256 + green; blue numbers the instances.

    Raises:
        UnreadableItem: if the file is missing, corrupt, or does not have three channels.
    """
    pixels = _read_pixels(file, ("RGB",), "colours (an RGB PNG)").astype(np.uint16)
    return pixels[..., 0] // 10 * 256 + pixels[..., 1]


def read_list(file: Path, remedy: str) -> list[str]:
    """Read the first word of every line that has one.

    Raises:
        InputError: if the file is missing or empty; the message ends with `remedy`.
    """
    try:
        words = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {str(file)!r} ({error}); {remedy}") from error
    if not words:
        raise InputError(f"the list {str(file)!r} is empty; {remedy}")
    return words


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: if the file is missing, corrupt, or does not hold an object.
    """
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(file)!r} ({error}); fetch it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{str(file)!r} holds a {type(values).__name__}, not an object; fetch it again")
    return values


class LayoutMissing(InputError):
    """A folder does not have the layout of the data set: it holds another set, or none."""


def need_folder(folder: Path, expected: str) -> Path:
    """Return the folder if it exists.

    Raises:
        LayoutMissing: if it does not.
    """
    if not folder.is_dir():
        raise LayoutMissing(f"no folder {str(folder)!r}; expected {expected}")
    return folder


def first_folder(candidates: list[Path], expected: str) -> Path:
    """Return the first candidate that is a folder.

    Raises:
        LayoutMissing: if none is.
    """
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise LayoutMissing(f"none of {', '.join(repr(str(folder)) for folder in candidates)} exists; expected {expected}")


def _read_pixels(file: Path, modes: tuple[str, ...], expected: str) -> UInt8[np.ndarray, "..."]:
    try:
        with Image.open(file) as mask:
            mask.load()
            mode, pixels = mask.mode, np.array(mask)
    except _DAMAGE as error:
        raise UnreadableItem(f"{str(file)!r} is no readable mask ({error}); fetch it again", file) from error
    if mode not in modes:
        raise UnreadableItem(f"{str(file)!r} is of mode {mode!r}, not {expected}; give the original masks", file)
    return pixels
