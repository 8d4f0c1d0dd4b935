"""Grids of pictures with captions, and colour palettes for masks. Only PIL is needed."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from skipless.data.captioned import LegendEntry, captioned_grid
from skipless.errors import InputError

_IGNORED_COLOUR = (255, 255, 255)


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    cell: tuple[int, int],
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    legend: Sequence[LegendEntry] = (),
) -> Image.Image:
    """Compose a grid of pictures with captions; each picture is resized to its cell.

    Args:
        rows: rows of equally many pictures. Pictures smaller than the cell are enlarged by nearest neighbour, so that
            patches keep sharp edges.
        cell: height and width of a cell in pixels.
        columns: one title for each column, or none.
        names: one caption for each row, or none.
        legend: texts with their colours.

    Raises:
        InputError: if there are no pictures, or the numbers of captions and pictures differ.

    Example:
        >>> picture_grid([[Image.new("RGB", (2, 2))] * 3] * 2, cell=(32, 32), columns=("a", "b", "c")).size
        (112, 95)
    """
    across = len(rows[0]) if rows else 0
    if not across or any(len(row) != across for row in rows):
        raise InputError("a grid of pictures needs rows, each with as many pictures as the others")
    if len(columns) not in (0, across) or len(names) not in (0, len(rows)):
        raise InputError(f"{len(columns)} captions for {across} columns, {len(names)} for {len(rows)} rows")
    high, wide = cell
    shown = [[_resized(picture, wide, high) for picture in row] for row in rows]
    return captioned_grid(shown, titles=columns, names=names, legend=legend)


def _resized(picture: Image.Image, width: int, height: int) -> Image.Image:
    grows = picture.width < width and picture.height < height
    how = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((width, height), how)


def save_png(picture: Image.Image, path: Path) -> Path:
    """Write a PNG file atomically.

    Raises:
        InputError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(temporary, format="PNG")
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write the picture {str(path)!r} ({error}); make room there or name another"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def palette(count: int) -> UInt8[np.ndarray, "c 3"]:
    """Pascal VOC's colour map: one colour for each class, the first black.

    The bits of the class number go to the three channels in turn, with low bits of the number as high bits of the
    colour.
    """
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                colours[number, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def mask_legend(labels: Iterable[int], classes: Sequence[str], ignore: int | None = None) -> list[LegendEntry]:
    """Names and colours of the labels that occur, matching `mask_picture`; the ignored label comes last."""
    occurring, colours = set(labels), palette(len(classes)).tolist()
    entries: list[LegendEntry] = [
        (name, tuple(colours[label])) for label, name in enumerate(classes) if label in occurring - {ignore}
    ]
    return [*entries, ("ignored", _IGNORED_COLOUR)] if ignore in occurring else entries


def mask_picture(labels: Int64[Tensor, "h w"], classes: int, ignore: int | None = None) -> Image.Image:
    """A mask in colours; ignored pixels are white."""
    colours = np.vstack([palette(classes), np.array([_IGNORED_COLOUR], np.uint8)])
    numbers = labels.cpu().numpy()
    numbers = np.where(numbers == ignore, classes, numbers) if ignore is not None else numbers
    return Image.fromarray(colours[numbers])
