"""Reading files of dense data sets, with errors that name the file."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from skipless.data.decoding import decode_text
from skipless.data.folder import read_image
from skipless.errors import InputError

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")  # formats that do not keep ids as they are
_LARGEST_SIDE = 2**31 - 1  # no image is wider


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


def image_size(file: Path) -> tuple[int, int] | None:
    """Return width and height from an image's header; None if it cannot be read."""
    try:
        with Image.open(file) as opened:
            return opened.size
    except Exception:  # Pillow's parsers raise almost any exception on damaged bytes
        return None


def whole_box(xmin: float, ymin: float, xmax: float, ymax: float) -> list[int]:
    """Round the sides of a box to pixels.

    Raises:
        ValueError: if a side is no number or beyond any image, or the box ends before it starts.
    """
    sides = (xmin, ymin, xmax, ymax)
    if not all(abs(side) <= _LARGEST_SIDE for side in sides):  # not so for NaN, either
        raise ValueError(f"a side of the box {', '.join(map(str, sides))} lies beyond any image")
    box = [round(side) for side in sides]
    if box[0] > box[2] or box[1] > box[3]:
        raise ValueError(f"box {', '.join(map(str, box))} ends before it starts")
    return box


def read_list(file: Path, remedy: str) -> list[str]:
    """Read the lines of a list, without blank ones.

    Raises:
        InputError: if the file is missing, empty or no text; the message ends with `remedy`.
    """
    try:
        lines = [line.strip() for line in decode_text(file.read_bytes()).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list {str(file)!r} ({error}); {remedy}") from error
    if any("\0" in line for line in lines):
        raise InputError(f"the list {str(file)!r} is no text; {remedy}")
    if not lines:
        raise InputError(f"the list {str(file)!r} is empty; {remedy}")
    return lines


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: if the file is missing, corrupt, or does not hold an object.
    """
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
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
        with Image.open(io.BytesIO(file.read_bytes())) as mask:
            mode, form = _stored_mode(mask), mask.format
            mask.load()
            pixels = np.array(mask)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged bytes
        why = str(error) or type(error).__name__
        raise UnreadableItem(f"{str(file)!r} is no readable mask ({why}); fetch it again", file) from error
    if mode not in modes:
        raise UnreadableItem(f"{str(file)!r} is of mode {mode!r}, not {expected}; give the original masks", file)
    if form in _LOSSY:
        raise UnreadableItem(f"{str(file)!r} is a {form}, which does not keep ids; give the original masks", file)
    return pixels


def _stored_mode(mask: Image.Image) -> str:
    """Return the mode in the file; Pillow opens grey of 2 and 4 bits as `L`, with its levels spread over 0 to 255."""
    tiles = getattr(mask, "tile", None)
    raw = tiles[0].args if tiles else None
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return raw if mask.mode == "L" and isinstance(raw, str) and raw.startswith("L;") else mask.mode
