"""PCA picture study (section 6.3, Figures 4, 7 and 8): principal components of patch features as colours."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from skipless.data.dense.reading import read_rgb
from skipless.data.folder import EXTENSIONS, image_files
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, ImageTransform, Key, features
from skipless.evaluators.features.store_builder import weights_hash
from skipless.evaluators.pictures.grids import save_png
from skipless.evaluators.pictures.pca import PcaColours, pca_picture
from skipless.models.vit_view import find_vit
from skipless.studies.config import PictureConfig
from skipless.studies.formatting import feature_name, file_name, markdown_table
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import COLOURS, trust
from skipless.studies.study_folder import StudyFolder, rank_and_world_size

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def find_pictures(folder: Path, count: int = 8, seed: int | None = None) -> list[tuple[str, Image.Image]]:
    """Read images from a folder and its subfolders: the first by name, or a random sample if a seed is given.

    Taking the first by name follows the paper's "without cherry-picking".

    Raises:
        InputError: if there is no image, or one cannot be read.
    """
    files = sorted(folder / os.fsdecode(file) for file in image_files(folder))
    photos = [file for file in files if file.suffix.lower() != ".png"]
    files = photos or files  # PNGs beside photos are masks
    if count < 1:
        raise InputError(f"--sample {count}: give at least 1 image")
    if not files:
        raise InputError(f"no image below {str(folder)!r} (looked for {', '.join(EXTENSIONS)})")
    if seed is not None:
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
        files = [files[i] for i in order]
    return [(file.stem, read_rgb(file)) for file in files[:count]]


def draw_features(
    models: Mapping[str, tuple[nn.Module, Statistics | None]],
    images: Sequence[tuple[str, Image.Image]],
    config: PictureConfig | None = None,
    *,
    out: Path,
    data_name: str = "",
    origin: Origin = UNSAID,
) -> list[Path]:
    """Draw the features of the same images with every model.

    With several models, each block gets a PNG with one column for each model. With one model, a single PNG has one
    column for each block.

    Args:
        models: for each column title, the model, and mean and standard deviation of its channels.
        images: names and pictures.
        config: settings of the pictures.
        out: parent of the study's folder, which gets the pictures, and `result.json` and `table.md` with the fraction
            of variance that they show.
        data_name: name of the images' folder, for the name of the study's.
        origin: whose weights these are and which command asks for it, for the folder's name and its page.

    Returns:
        Paths of the pictures.

    Raises:
        InputError: if an image or a setting does not fit a model.
    """
    config = config or PictureConfig()
    name = _folder_name(data_name, list(models))
    state = origin.state if len(models) == 1 else None
    folder = StudyFolder(out, name, _settings(models, images, config), state=state, before="pca")
    rows = {name: _patch_features(model, statistics, images, config) for name, (model, statistics) in models.items()}
    drawn: dict[str, dict[str, PcaColours]] = {}
    for file, (columns, grid) in _picture_columns(rows).items():
        picture, drawn[file] = pca_picture(
            [image for _, image in images],
            columns,
            [grid] * len(images),
            names=[name for name, _ in images],
            scope=config.scope,
            foreground=config.foreground,
        )
        if rank_and_world_size()[0] == 0:
            save_png(picture, folder.path / file)
    given = [network_input(name, *of, config) for name, of in models.items()]
    table = _variance_table(drawn, images, "; ".join(given))
    folder.finish(_record(drawn, images) | {"given": given}, table)
    _write_page(folder, table, models, data_name or counted(len(images), "image"), config, origin, list(drawn))
    return [folder.path / file for file in drawn]


def _write_page(
    folder: StudyFolder,
    table: str,
    models: Mapping[str, tuple[nn.Module, Statistics | None]],
    data: str,
    config: PictureConfig,
    origin: Origin,
    files: Sequence[str],
) -> None:
    one = origin if len(models) == 1 else Origin(None, origin.command)  # several have no state in common
    column = "block" if len(models) == 1 else "model"
    write_study_page(
        folder,
        COLOURS,
        table,
        model=next(iter(models.values()))[0],
        name=" and ".join(models),
        data=data,
        config=config,
        notes=trust(COLOURS, one, 0),
        origin=one,
        pictures={file: f"{file.removesuffix('.png')}: a row an image, a column a {column}" for file in files},
    )


def _folder_name(data_name: str, models: Sequence[str]) -> str:
    """The study, the images and, where there are several, the models: their states alone would not tell them apart."""
    beside = "-vs-".join(models) if len(models) > 1 else ""
    return "-".join(part for part in ("pca", data_name, beside) if part)


def _settings(
    models: Mapping[str, tuple[nn.Module, Statistics | None]],
    images: Sequence[tuple[str, Image.Image]],
    config: PictureConfig,
) -> dict[str, Any]:
    """Everything that the pictures depend on."""
    seen = {}
    for name, (model, statistics) in models.items():
        tokens = find_vit(model)
        seen[name] = (weights_hash(tokens), statistics or (tokens.mean, tokens.std))
    pixels = [(name, image.size, hashlib.sha256(image.tobytes()).hexdigest()) for name, image in images]
    return {"models": seen, "images": pixels, **asdict(config)}


def _picture_columns(
    rows: Mapping[str, tuple[tuple[int, int], Mapping[Key, list[torch.Tensor]]]],
) -> dict[str, tuple[dict[str, list[torch.Tensor]], tuple[int, int]]]:
    """The columns of every picture file, and their patch grid."""
    if len(rows) == 1:
        ((name, (grid, made)),) = rows.items()
        return {f"pca-{file_name(name)}.png": ({feature_name(key): patches for key, patches in made.items()}, grid)}
    grids = {grid for grid, _ in rows.values()}
    shared = [key for key in next(iter(rows.values()))[1] if all(key in made for _, made in rows.values())]
    if len(grids) > 1 or not shared:
        raise InputError(
            f"the models differ in grids ({sorted(grids)}) or blocks; give --size, or blocks that all of them have"
        )
    (grid,) = grids
    return {
        f"pca-block{block}-{kind}.png": ({name: made[block, kind] for name, (_, made) in rows.items()}, grid)
        for block, kind in shared
    }


def _record(drawn: Mapping[str, Mapping[str, PcaColours]], images: Sequence[tuple[str, Image.Image]]) -> dict[str, Any]:
    """The fraction of variance that the colours show, as plain values."""
    pictures = {
        file: {name: {"explained": found.explained, "n": found.n} for name, found in columns.items()}
        for file, columns in drawn.items()
    }
    return {"images": [name for name, _ in images], "pictures": pictures}


def _variance_table(
    drawn: Mapping[str, Mapping[str, PcaColours]], images: Sequence[tuple[str, Image.Image]], given: str
) -> str:
    """The fraction of variance that the colours show: for each picture a table, and below it what the networks saw."""
    tables = []
    for file, columns in drawn.items():
        rows = []
        for name, found in columns.items():
            of = ["all images"] if found.scope == "set" else [image for image, _ in images]
            rows += [
                [name, whose, *(f"{100 * share:.1f}" for share in shares), str(n)]
                for whose, shares, n in zip(of, found.explained, found.n, strict=True)
            ]
        head = ["column", "components of", "1 (%)", "2 (%)", "3 (%)", "patches"]
        tables.append(f"{markdown_table(head, rows)}\n\n{file}: {given}")
    return "\n\n".join(tables)


def network_input(name: str, model: nn.Module, statistics: Statistics | None, config: PictureConfig) -> str:
    """What a model is given of each image, in words: how many pixels, and whether in colour."""
    high, wide = _transform(model, statistics, config).size or (0, 0)
    channels = len((statistics or (find_vit(model).mean,))[0])
    colour = "grey (1 channel)" if channels == 1 else "colour (3 channels)"
    return f"{name} is given {high} x {wide} pixels in {colour}"


def _patch_features(
    model: nn.Module,
    statistics: Statistics | None,
    images: Sequence[tuple[str, Image.Image]],
    config: PictureConfig,
) -> tuple[tuple[int, int], dict[Key, list[torch.Tensor]]]:
    """The patch grid, and the patch features of every block and image."""
    transform = _transform(model, statistics, config)
    wanted = FeatureConfig(config.blocks, config.kinds, config.norm, config.precision)
    device = next(model.parameters()).device
    batch = torch.stack([transform(image) for _, image in images]).to(device)
    made = features(model, batch, wanted)
    return next(iter(made.values())).grid, {key: list(found.patches.cpu()) for key, found in made.items()}


def _transform(model: nn.Module, statistics: Statistics | None, config: PictureConfig) -> ImageTransform:
    tokens = find_vit(model)
    mean, std = statistics or (tokens.mean, tokens.std)
    size = config.size or (tokens.image_size or (224, 224))[0]
    return ImageTransform.of(model, size, mean=mean, std=std)
