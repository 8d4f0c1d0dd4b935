"""Pictures of discovered objects: boxes on the images, and heat maps of the eigenvectors that they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from skipless.data.captioned import Colour, captioned_grid, draw_boxes_
from skipless.errors import InputError
from skipless.evaluators.discovery.regions import Discovery
from skipless.evaluators.pictures.grids import save_png

TRUE, FOUND = (60, 220, 60), (235, 40, 40)
ABOVE, BELOW, SEED = (178, 24, 43), (33, 102, 172), (0, 0, 0)


def draw_discoveries(
    path: str | Path,
    images: Sequence[UInt8[Tensor, "3 _h _w"]],
    discoveries: Mapping[str, Sequence[Discovery]],
    *,
    boxes_true: Sequence[Sequence[Sequence[float]]] | None = None,
    names: Sequence[str] = (),
    patch: int = 16,
    height: int = 160,
) -> Path:
    """Write a PNG with one row for each image; each model (or block, or method) has a box and a heat map in it.

    True boxes are green, found boxes are red. The heat map shows the eigenvector around its mean (for LOST, the summed
    similarity around zero): red on the seed's side, blue on the other. The seed is a black square.

    Args:
        path: file to write.
        images: uint8 RGB images of any size, before padding.
        discoveries: for each model name, the discovery in each image; the name is the title of two columns.
        boxes_true: true boxes of each image.
        names: captions of the images.
        patch: side of a patch in pixels.
        height: height of a row in pixels.

    Returns:
        The path.

    Raises:
        InputError: if the number of images differs, or the file cannot be written.
    """
    for name, found in discoveries.items():
        if len(found) != len(images):
            raise InputError(f"{name!r} has {len(found)} discoveries for {len(images)} images; give one for each")
    if boxes_true is not None and len(boxes_true) != len(images):
        raise InputError(f"true boxes of {len(boxes_true)} images, but {len(images)} images; give a list for each")
    if len(names) not in (0, len(images)):
        raise InputError(f"{len(names)} names for {len(images)} images; give one for each")
    if not images or not discoveries:
        raise InputError(f"{len(images)} images and {len(discoveries)} models; give at least one of each to draw")
    true = boxes_true if boxes_true is not None else [()] * len(images)
    rows = []
    for row, image in enumerate(images):
        photo, panels = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), []
        for discovery in (found[row] for found in discoveries.values()):
            boxes = [*((box, TRUE) for box in true[row]), (discovery.box, FOUND)]
            panels += [_with_boxes(picture, boxes, height) for picture in (photo, _heatmap(discovery, patch, image))]
        rows.append(panels)
    titles = [
        f"{name}: {what}"
        for name, found in discoveries.items()
        for what in ("image and boxes", _heatmap_title(found[0]))
    ]
    legend = [("true box", TRUE)] if boxes_true is not None else []
    legend += [("found box", FOUND), ("seed's side", ABOVE), ("other side", BELOW), ("seed", SEED)]
    return save_png(captioned_grid(rows, titles=titles, names=names, legend=legend), Path(path))


def _heatmap_title(discovery: Discovery) -> str:
    if discovery.eigenvector is not None:
        return "eigenvector"
    return "summed similarity" if discovery.similarity is not None else "foreground"


def _heatmap(discovery: Discovery, patch: int, image: UInt8[Tensor, "3 _h _w"]) -> Image.Image:
    """Colour the tokens, white at the threshold between the sides, and crop the padding."""
    if discovery.eigenvector is not None:
        values = discovery.eigenvector - discovery.eigenvector.mean()
    elif discovery.similarity is not None:
        values = discovery.similarity
    else:
        values = discovery.foreground.double()
    values = (values / values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)).cpu()
    above, below = torch.tensor(ABOVE).float(), torch.tensor(BELOW).float()
    strength = values.abs()[..., None].float()
    colours = 255 * (1 - strength) + torch.where(values[..., None] > 0, above, below) * strength
    pixels = np.kron(colours.round().to(torch.uint8).numpy(), np.ones((patch, patch, 1), np.uint8))
    row, column = divmod(discovery.seed, values.shape[1])
    quarter = patch // 4
    centre = (slice(row * patch + quarter, (row + 1) * patch - quarter),)
    centre += (slice(column * patch + quarter, (column + 1) * patch - quarter),)
    pixels[centre] = SEED
    return Image.fromarray(pixels[: image.shape[1], : image.shape[2]])


def _with_boxes(picture: Image.Image, boxes: Sequence[tuple[Sequence[float], Colour]], height: int) -> Image.Image:
    """A picture resized to a height, with boxes drawn on it; boxes are in pixels of the original."""
    scale = height / picture.height
    return draw_boxes_(picture.resize((max(1, round(picture.width * scale)), height)), boxes, scale, width=2)
