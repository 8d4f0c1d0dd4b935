"""draw_crops: a picture of the crops of some images, to inspect the augmentation."""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from skipless.data.captioned import LegendEntry, captioned_grid
from skipless.data.folder import read_image
from skipless.data.loading.seeding import derive_seed
from skipless.data.multicrop.apply import augment_all, to_pixels
from skipless.data.multicrop.config import GLOBAL_CROPS, MultiCropConfig
from skipless.data.multicrop.params import CropParams, sample_crop_params
from skipless.errors import InputError

_BOXES: tuple[LegendEntry, ...] = (("box of a global crop", (255, 0, 0)), ("box of a local crop", (255, 255, 0)))


def draw_crops(path: Path, images: Sequence[Path], config: MultiCropConfig | None = None, *, seed: int = 0) -> None:
    """Draw a PNG with one row per image: the image with the boxes of its crops, then the crops.

    The crops are those of `MultiCropImages` over these files in epoch 0, before normalisation. Captions name the crops,
    the files and the settings.

    Args:
        path: the PNG to write.
        images: image files.
        config: options of the augmentation.
        seed: seed of the run.

    Raises:
        InputError: if no image is given, one cannot be read, or the picture cannot be written.
    """
    config = config or MultiCropConfig()
    if not images:
        raise InputError("no images to draw crops of; give at least one file")
    height = max(config.global_size, config.local_size)
    rows = [_row(file, index, config, seed, height) for index, file in enumerate(images)]
    crops = [f"global crop {number}" for number in range(1, GLOBAL_CROPS + 1)]
    crops += [f"local crop {number}" for number in range(1, config.local_crops + 1)]
    settings = f"Crops of epoch 0, seed {seed}, mode {config.mode}, before normalisation."
    sheet = captioned_grid(
        rows,
        titles=("image and boxes", *crops),
        names=_names(images),
        legend=_BOXES[: 1 + bool(config.local_crops)],
        note=settings,
    )
    try:
        sheet.save(path, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r} ({error}); give a file in a folder that exists") from error


def _names(files: Sequence[Path]) -> list[str]:
    """What tells files apart: their paths below the folder that all are in."""
    common = os.path.commonpath([file.absolute().parent for file in files])
    return [os.fsencode(os.path.relpath(file.absolute(), common)).decode(errors="replace") for file in files]


def _row(file: Path, index: int, config: MultiCropConfig, seed: int, height: int) -> list[Image.Image]:
    image = read_image(file)
    draws = sample_crop_params(Random(derive_seed(seed, "crops", 0, index)), image.height, image.width, config)
    crops = [
        Image.fromarray(np.rint(crop).transpose(1, 2, 0).astype(np.uint8))
        for crop in augment_all(to_pixels(image), draws, config.mode)
    ]
    return [_with_boxes(image, draws, height), *crops]


def _with_boxes(image: Image.Image, draws: Sequence[CropParams], height: int) -> Image.Image:
    """Draw the boxes into the image, fitted into a square cell so that the crops of all rows are aligned."""
    scale = height / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    pen = ImageDraw.Draw(small)
    for position, draw in enumerate(draws):
        box = draw.box
        corners = (box.left, box.top, box.left + box.width, box.top + box.height)
        left, top, right, bottom = (edge * scale for edge in corners)
        pen.rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)), outline=_BOXES[position >= GLOBAL_CROPS][1]
        )
    cell = Image.new("RGB", (height, height), "white")
    cell.paste(small)
    return cell
