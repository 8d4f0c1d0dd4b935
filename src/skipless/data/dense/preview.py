"""Contact sheets: images with their boxes, beside their masks, to inspect a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from skipless.data.captioned import LegendEntry, captioned_grid, draw_boxes_
from skipless.data.dense.reading import UnreadableItem
from skipless.data.dense.records import BoxData, SegmentationData
from skipless.errors import InputError

_BOX: LegendEntry = ("box", (255, 0, 0))
_DIFFICULT: LegendEntry = ("difficult box", (255, 255, 0))
_UNREADABLE = (128, 128, 128)
_SCENES = "Generated scenes: each kind of object or photo has borrowed a class's name; after the colon, what it is."


def contact_sheet(
    file: Path,
    masks: SegmentationData | None = None,
    boxes: BoxData | None = None,
    *,
    count: int = 12,
    columns: int = 3,
    cell: int = 192,
    seed: int = 0,
    stands_for: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Draw a sample of a set to a PNG: images with boxes, coloured masks, and the names of the classes below.

    A legend at the bottom explains the colours; ignored pixels are white.

    Args:
        file: the PNG to write.
        masks: a set with masks.
        boxes: a set with boxes. Given both sets, their images are matched by name.
        count: number of images; all of them if there are fewer.
        columns: number of columns of the sheet.
        cell: longer side of every picture in pixels.
        seed: seed of the sample.
        stands_for: what a class name stands for where it is not to be taken at its word: of generated scenes,
            `read_scenes(folder).stands_for`. The legend says it, and a note.

    Returns:
        A message for every image that could not be read; a grey square takes its place.

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
    titles = ("image" if boxes is None else "image and boxes", *(() if masks is None else ("mask",)))
    cells, problems, legend = [], [], dict[int, LegendEntry]()
    for place, item in enumerate(items):
        try:
            panels, names, entries = _panels(item.id, cell, masks, mask_of, boxes, boxes_of)
            legend |= entries
        except UnreadableItem as error:
            problems.append(str(error))
            panels, names = [Image.new("RGB", (cell, cell), _UNREADABLE)] * len(titles), ("unreadable",)
        caption = f"{item.id}: {', '.join(names)}" if names else item.id
        cells.append(captioned_grid([panels], titles=titles if place < columns else (), names=[caption]))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    entries = _with_meanings([entry for _, entry in sorted(legend.items())], stands_for or {})
    sheet = captioned_grid(rows, legend=entries, note=_SCENES if stands_for else "")
    try:
        sheet.save(file, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {str(file)!r} ({error}); give a file in a folder that exists") from error
    return tuple(problems)


def _with_meanings(entries: Sequence[LegendEntry], meant: Mapping[str, str]) -> list[LegendEntry]:
    """Entries of a legend in which a borrowed name says what it stands for."""
    return [(f"{name}: {meant[name]}" if name in meant else name, colour) for name, colour in entries]


def colour_labels(labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colour labels: 0 is black, 255 white, and the hue of the others advances by the golden ratio."""
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
) -> tuple[list[Image.Image], tuple[str, ...], dict[int, LegendEntry]]:
    """Return the pictures of an image, the names of its classes, and the entries of the legend, boxes first."""
    panels: list[Image.Image] = []
    names: tuple[str, ...] = ()
    legend: dict[int, LegendEntry] = {}
    if boxes is not None and name in boxes_of:
        image, objects = boxes.load(boxes_of[name])
        kinds = [_DIFFICULT if difficult else _BOX for difficult in objects.difficult]
        framed = [(box, colour) for box, (_, colour) in zip(objects.boxes.tolist(), kinds, strict=True)]
        panels.append(draw_boxes_(_fitted(image, side), framed, side / max(image.size)))
        names = objects.classes
        legend |= {-1 if kind == _DIFFICULT else -2: kind for kind in kinds}
    if masks is not None:
        image, labels = masks.load(mask_of[name])
        coloured = Image.fromarray(colour_labels(labels))
        panels = [*(panels or [_fitted(image, side)]), _fitted(coloured, side)]
        occurring = np.unique(labels)
        names = names or tuple(masks.classes[label] for label in occurring[occurring != masks.ignore])
        for label, colour in zip(occurring.tolist(), colour_labels(occurring[None])[0].tolist(), strict=True):
            legend[label] = ("ignored" if label == masks.ignore else masks.classes[label], tuple(colour))
    return panels, names, legend


def _fitted(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.contain(image, (side, side), Image.Resampling.NEAREST)  # a mask's colours must not mix
