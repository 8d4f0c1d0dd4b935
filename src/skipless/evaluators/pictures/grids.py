"""Grids of pictures, by PIL alone: images beside what models make of them, a palette for masks, captions."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from skipless.data.captioned import LegendEntry, captioned_grid
from skipless.errors import InputError

_VOID = (255, 255, 255)


def picture_grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    cell: tuple[int, int],
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    legend: Sequence[LegendEntry] = (),
) -> Image.Image:
    """Compose pictures to one: each resized to its cell, captions as `captioned_grid` has them.

    Args:
        rows: of equally many pictures. One of few pixels (patches) keeps its edges: it is enlarged by the nearest.
        cell: height and width of a cell in pixels.
        columns: captions, one a column, or none.
        names: of the rows, one each, or none.
        legend: words and the colours that stand for them.

    Raises:
        InputError: if there is nothing to show, or captions and pictures differ in number.

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
    """Write a PNG whole or not at all.

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
    """One colour a class, black first, as Pascal VOC colours its masks.

    The bits of the class's number go to the three channels in turn, low ones to high bits.
    """
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                colours[number, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def mask_legend(labels: Iterable[int], classes: Sequence[str], ignore: int | None = None) -> list[LegendEntry]:
    """Names and colours, as `mask_picture` has them, of the labels that occur; what is to be ignored comes last."""
    occurring, colours = set(labels), palette(len(classes)).tolist()
    entries: list[LegendEntry] = [
        (name, tuple(colours[label])) for label, name in enumerate(classes) if label in occurring - {ignore}
    ]
    return [*entries, ("ignored", _VOID)] if ignore in occurring else entries


def mask_picture(labels: Int64[Tensor, "h w"], classes: int, ignore: int | None = None) -> Image.Image:
    """A mask in colours; what is to be ignored is white."""
    colours = np.vstack([palette(classes), np.array([_VOID], np.uint8)])
    numbers = labels.cpu().numpy()
    numbers = np.where(numbers == ignore, classes, numbers) if ignore is not None else numbers
    return Image.fromarray(colours[numbers])
