"""Pictures of discovered objects: boxes on the images, and beside them the eigenvectors that they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.regions import Discovery

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

TRUE = (60, 220, 60)
FOUND = (235, 40, 40)
GAP, HEADER = 4, 14  # pixels


def draw_discoveries(
    path: str | Path,
    images: Sequence[UInt8[Tensor, "3 _h _w"]],
    discoveries: Mapping[str, Sequence[Discovery]],
    *,
    boxes_true: Sequence[Sequence[Sequence[float]]] | None = None,
    patch: int = 16,
    height: int = 160,
) -> Path:
    """Write a PNG with a row for each image, and for each model (or block, or method) its box and its eigenvector.

    True boxes are green, found ones red. The eigenvector (LOST: the summed similarity) is red on the seed's side of
    what it is compared with, its mean (LOST: zero), and blue on the other; the seed is a black square.

    Args:
        path: the file to write.
        images: uint8 RGB images, of any sizes, as they were before padding.
        discoveries: what was found in each image, by the name to head its two columns with.
        boxes_true: true boxes of each image.
        patch: side of a patch in pixels.
        height: of a row, in pixels.

    Returns:
        The path.

    Raises:
        InputError: if the number of images differs.
    """
    from PIL import Image, ImageDraw  # noqa: PLC0415 - only pictures need it

    for name, found in discoveries.items():
        if len(found) != len(images):
            raise InputError(f"{name!r} has {len(found)} discoveries for {len(images)} images; give one for each")
    if boxes_true is not None and len(boxes_true) != len(images):
        raise InputError(f"true boxes of {len(boxes_true)} images, but {len(images)} images; give a list for each")
    if not images or not discoveries:
        raise InputError(f"{len(images)} images and {len(discoveries)} models; give at least one of each to draw")
    width = max(round(image.shape[2] * height / image.shape[1]) for image in images)
    size = (2 * len(discoveries) * (width + GAP) - GAP, HEADER + len(images) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, found) in enumerate(discoveries.items()):
        left = 2 * column * (width + GAP)
        pen.text((left, 1), name, fill="black")
        for row, (image, discovery) in enumerate(zip(images, found, strict=True)):
            scale, top = height / image.shape[1], HEADER + row * (height + GAP)
            picture, heat = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), _heat(discovery, patch, image)
            target = (round(image.shape[2] * scale), height)
            sheet.paste(picture.resize(target), (left, top))
            sheet.paste(heat.resize(target), (left + width + GAP, top))
            for corner in (left, left + width + GAP):
                for box in boxes_true[row] if boxes_true is not None else ():
                    _frame(pen, box, scale, (corner, top), TRUE)
                _frame(pen, discovery.box, scale, (corner, top), FOUND)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")
    return path


def _heat(discovery: Discovery, patch: int, image: UInt8[Tensor, "3 _h _w"]) -> "Image.Image":
    """Colour the tokens, white where the sides meet, and cut off the padding."""
    from PIL import Image  # noqa: PLC0415

    if discovery.eigenvector is not None:
        values = discovery.eigenvector - discovery.eigenvector.mean()
    elif discovery.similarity is not None:
        values = discovery.similarity
    else:
        values = discovery.foreground.double()
    values = (values / values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)).cpu()
    red, blue = torch.tensor([178.0, 24, 43]), torch.tensor([33.0, 102, 172])
    strength = values.abs()[..., None].float()
    colours = 255 * (1 - strength) + torch.where(values[..., None] > 0, red, blue) * strength
    pixels = np.kron(colours.round().to(torch.uint8).numpy(), np.ones((patch, patch, 1), np.uint8))
    row, column = divmod(discovery.seed, values.shape[1])
    quarter = patch // 4
    centre = (slice(row * patch + quarter, (row + 1) * patch - quarter),)
    centre += (slice(column * patch + quarter, (column + 1) * patch - quarter),)
    pixels[centre] = 0
    return Image.fromarray(pixels[: image.shape[1], : image.shape[2]])


def _frame(
    pen: "ImageDraw.ImageDraw",
    box: Sequence[float],
    scale: float,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    xmin, ymin, xmax, ymax = (scale * side for side in box)
    left, top = corner
    pen.rectangle((left + xmin, top + ymin, left + xmax - 1, top + ymax - 1), outline=colour, width=2)
