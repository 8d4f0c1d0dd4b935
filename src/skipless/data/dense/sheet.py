"""A contact sheet: images with their boxes, beside their masks, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageOps

from skipless.data.dense.reading import UnreadableItem
from skipless.data.dense.records import BoxData, ObjectBoxes, SegmentationData
from skipless.errors import InputError

_CAPTION = 14  # pixels
_MARGIN = 4


def contact_sheet(
    file: Path,
    masks: SegmentationData | None = None,
    boxes: BoxData | None = None,
    *,
    count: int = 12,
    columns: int = 3,
    cell: int = 192,
    seed: int = 0,
) -> tuple[str, ...]:
    """Draw a sample of a set to a PNG: image with boxes, mask in colours (ignored pixels white), names below.

    Args:
        file: where to write it.
        masks: a set with masks, ...
        boxes: ... one with boxes, or both of one layout, matched by the images' names.
        count: so many images, or as many as there are.
        columns: of the sheet.
        cell: longer side of every picture in pixels.
        seed: of the sample.

    Returns:
        What could not be read, one message each; its place says so.

    Raises:
        InputError: if neither set is given or the file cannot be written.
    """
    data = masks if masks is not None else boxes
    if data is None:
        raise InputError("a contact sheet needs a set with masks or one with boxes; give one of the two")
    items = data.sample(min(count, len(data)), seed).items
    drawn = {item.id for item in items}
    mask_of, boxes_of = (
        {} if one is None else {item.id: index for index, item in enumerate(one.items) if item.id in drawn}
        for one in (masks, boxes)
    )
    cells, problems = [], []
    for item in items:
        try:
            panels, names = _panels(item.id, cell, masks, mask_of, boxes, boxes_of)
        except UnreadableItem as error:
            problems.append(str(error))
            panels, names = [Image.new("RGB", (cell, cell), "gray")], ("unreadable",)
        cells.append(_cell(panels, f"{item.id}: {', '.join(names)}", cell))
    sheet = _grid(cells, min(columns, len(cells)))
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {str(file)!r} ({error}); give a file in a folder that exists") from error
    return tuple(problems)


def colour_labels(labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Give every label a colour of its own, 0 black and 255 white: the hue steps by the golden ratio."""
    steps = np.arange(256)
    hues, strengths, values = steps * 0.618034 % 1 * 255, 230 - steps % 5 * 32, 255 - steps % 3 * 45
    colours = Image.fromarray(np.stack([hues, strengths, values], axis=-1).astype(np.uint8)[None], "HSV")
    table = np.array(colours.convert("RGB"))[0]
    table[[0, 255]] = [[0, 0, 0], [255, 255, 255]]
    return table[labels]


def _panels(
    name: str,
    side: int,
    masks: SegmentationData | None,
    mask_of: dict[str, int],
    boxes: BoxData | None,
    boxes_of: dict[str, int],
) -> tuple[list[Image.Image], tuple[str, ...]]:
    panels: list[Image.Image] = []
    names: tuple[str, ...] = ()
    if boxes is not None and name in boxes_of:
        image, objects = boxes.load(boxes_of[name])
        panels.append(_boxed(_fitted(image, side), objects, side / max(image.size)))
        names = objects.classes
    if masks is not None:
        image, labels = masks.load(mask_of[name])
        coloured = Image.fromarray(colour_labels(labels))
        panels = [*(panels or [_fitted(image, side)]), _fitted(coloured, side)]
        names = names or tuple(masks.classes[label] for label in np.unique(labels[labels != masks.ignore]))
    return panels, names


def _boxed(image: Image.Image, objects: ObjectBoxes, scale: float) -> Image.Image:
    draw = ImageDraw.Draw(image)
    for box, difficult in zip((objects.boxes * scale).tolist(), objects.difficult.tolist(), strict=True):
        xmin, ymin, xmax, ymax = box
        corners = (xmin, ymin, max(xmax - 1, xmin), max(ymax - 1, ymin))
        draw.rectangle(corners, outline="yellow" if difficult else "red")
    return image


def _fitted(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.contain(image, (side, side), Image.Resampling.NEAREST)  # a mask's colours must not mix


def _cell(panels: Sequence[Image.Image], caption: str, side: int) -> Image.Image:
    width = len(panels) * (side + _MARGIN)
    cell = Image.new("RGB", (width, side + _CAPTION), "black")
    for place, panel in enumerate(panels):
        cell.paste(panel, (place * (side + _MARGIN), 0))
    ImageDraw.Draw(cell).text((2, side + 1), caption, fill="white")
    return cell


def _grid(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = (max(lengths) for lengths in zip(*(cell.size for cell in cells), strict=True))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + _MARGIN), rows * (height + _MARGIN)), "black")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * (width + _MARGIN), place // columns * (height + _MARGIN)))
    return sheet
