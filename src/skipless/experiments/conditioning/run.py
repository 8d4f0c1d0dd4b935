"""Tables 5 and 6 and Figure 6: conditioning at initialisation and through training, ours beside the paper's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from skipless.choices import ROWS, Row, slug
from skipless.conditioning.measurement.measure import measure_conditioning
from skipless.conditioning.measurement.tracking import evenly_spaced_blocks, first_images, training_measure
from skipless.conditioning.operators.given import is_text
from skipless.data import ImageData, load_images, load_text
from skipless.display.values import counted
from skipless.experiments.conditioning.kept import cached, seen
from skipless.experiments.conditioning.page import write_conditioning
from skipless.experiments.conditioning.recipe import made, model_recipe, planned
from skipless.experiments.conditioning.report import (
    Moment,
    figure6_markdown,
    read_moments,
    table5_markdown,
    table6_markdown,
    table6_number,
)
from skipless.experiments.conditioning.scales import ConditioningScale, RunScale
from skipless.experiments.conditioning.vit_small import DINO, VIT_S, measured_vit_small, words_of
from skipless.models import block_views, create_model
from skipless.models.starting.first_tokens import Given
from skipless.recipes import LanguageRecipe, Recipe, open_model
from skipless.recipes.language import held_out_windows
from skipless.report.condition_number import ConditionNumber
from skipless.report.write_files import drawing

TOKEN_IMAGES, TOKEN_TEXTS = 64, 8  # of Figure 6


def reproduce_tables(
    what: Literal["table5", "table6"],
    scale: ConditioningScale,
    out: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Table 5 (kappa(J J^T)) or Table 6 (kappa by layer): run and measure what is missing, lay ours beside the paper's.

    Args:
        what: the table.
        scale: `digits` and `fashion` train and measure the three models of `table1` with SOAP, `language` three of
            `table7`; `init` measures those of digits before training; `vit-s` measures ViT-S before training, in
            minutes; `paper` reads finished runs, and otherwise says what to run.
        out: folder of the report; the runs go into `out/runs` and serve both tables and Figure 6.
        seed: of weights, order and augmentation.
        data: another place for the data.
        jobs: runs at a time.
        epochs: another length.
        steps: another length in steps, in place of epochs.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    figures = drawing("skipless.experiments.conditioning.figures")
    kappa = drawing("skipless.report.pictures.kappa_figure")
    folders: Mapping[Row, Path] = {}
    if scale == "vit-s":
        found = measured_vit_small(what, out, seed)
        setting = f"{VIT_S} at initialisation, an image of N(0, 1) pixels, seed {seed}"
    elif scale == "init":
        found, setting = _before_training(out, seed, data)
    else:
        recipes = planned(scale, seed=seed, data=data, epochs=epochs, steps=steps)
        found, setting, folders = _through_training(recipes, scale, out, jobs)
    table = table5_markdown(found, setting) if what == "table5" else table6_markdown(found, setting)
    files: dict[str, Any] = {
        f"{what}.md": f"{table}\nMade by `{command}`.\n" if command else table,
        f"{what}.json": {row: [vars(moment) for moment in moments] for row, moments in found.items()},
    }
    if any(len(moments) > 1 for moments in found.values()):
        files["conditioning.png"] = figures.training_figure(found, f"Conditioning through training: {setting}")
    if what == "table6":
        label = "kappa of the layer's Gram matrix"
        for reading, series in _by_reading(found, scale).items():
            title = f"Table 6 at initialisation{f': {reading}' if reading else ''}"
            files["-".join(["table6-depth", *words_of(reading)]) + ".png"] = kappa.depth_figure(series, label, title)
    return write_conditioning(
        out, what, files, scale=scale, setting=setting, seed=seed, command=command, folders=folders
    )


def _before_training(out: Path, seed: int, data: str | None) -> tuple[dict[str, tuple[Moment, ...]], str]:
    """What the models of digits have at initialisation, and their setting in words."""
    recipes = {row: model_recipe("digits", row, seed=seed, data=data) for row in ROWS}
    images = load_images(recipes["skip"].data)
    recipes["skip"].model.check_covers(images.image_size, recipes["skip"].data.data)
    found = {row: _at_init(recipe, images, out / f"init-seed{seed}", row) for row, recipe in recipes.items()}
    return found, f"{recipes['skip'].model.title}, digits, at initialisation, seed {seed}"


def _through_training(
    recipes: dict[Row, Recipe], scale: RunScale, out: Path, jobs: int | None
) -> tuple[dict[str, tuple[Moment, ...]], str, dict[Row, Path]]:
    """What the runs' folders hold, once they are made, their setting in words, and the folders."""
    folders = made(recipes, scale, out, jobs)
    found = {row: read_moments(folder) for row, folder in folders.items()}
    one = recipes["skip"]
    length = counted(*((one.fit.epochs, "epoch") if one.fit.steps is None else (one.fit.steps, "step")))
    return found, f"{one.model.title}, {one.data.data}, {length}, SOAP, seed {one.fit.seed}", folders


def reproduce_figure6(
    scale: ConditioningScale,
    out: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Figure 6: tokens after the norm before each attention, with the paper's initialisation and after training.

    The scales are those of `reproduce_tables`; `init` and `vit-s` have no trained column.
    """
    figures = drawing("skipless.experiments.conditioning.figures")
    models: dict[str, nn.Module] = {}
    folders: Mapping[Row, Path] = {}
    if scale == "vit-s":
        pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
        models["initialisation"] = create_model(VIT_S, init=DINO, seed=seed)
    else:
        small = "digits" if scale == "init" else scale
        recipe = model_recipe(small, "skipless + init", seed=seed, data=data)
        models["initialisation"], pixels = _untrained(recipe)
        if scale != "init":
            recipes = planned(scale, seed=seed, data=data, epochs=epochs, steps=steps)
            folders = made({"skipless + init": recipes["skipless + init"]}, scale, out, jobs)
            models["trained"] = open_model(str(folders["skipless + init"])).model
    columns = {name: _tokens(model, pixels) for name, model in models.items()}
    several = f"{len(pixels)} {'texts' if is_text(pixels) else 'images'}"
    title = f"Figure 6 at scale {scale}: skipless + init, {several}"
    files = {"figure6.md": figure6_markdown(columns), "figure6.json": columns}
    files = {**files, "figure6.png": figures.tokens_figure(columns, title)}
    of = {"vit-s": VIT_S, "language": "a language model of Table 7"}.get(scale, "the model of Table 1")
    setting = f"{of}, skipless + init, {several}, seed {seed}"
    return write_conditioning(
        out, "figure6", files, scale=scale, setting=setting, seed=seed, command=command, folders=folders
    )


def _untrained(recipe: Recipe) -> tuple[nn.Module, Given]:
    """A recipe's model before training, and what its tokens are measured at."""
    if isinstance(recipe, LanguageRecipe):
        text = load_text(recipe.data)
        model = recipe.model.build_language(text.vocabulary, recipe.data.context, recipe.fit.seed)
        return model, held_out_windows(text, TOKEN_TEXTS, recipe.data.context)
    images = load_images(recipe.data)
    recipe.model.check_covers(images.image_size, recipe.data.data)
    return recipe.model.build(images, recipe.fit.seed), first_images(images, min(TOKEN_IMAGES, len(images.val)))


def _at_init(recipe: Recipe, images: ImageData, folder: Path, row: str) -> tuple[Moment, ...]:
    model = recipe.model.build(images, recipe.fit.seed)
    asked = seen(model, first_images(images, min(TOKEN_IMAGES, len(images.val))))
    file = folder / f"{slug(row)}.json"
    return (Moment(0.0, cached(file, asked, lambda: training_measure(images)(model))),)


def _by_reading(
    found: Mapping[str, tuple[Moment, ...]], scale: ConditioningScale
) -> dict[str, dict[str, list[tuple[int, ConditionNumber]]]]:
    """A picture for each choice of tokens, its lines by model."""
    pictures: dict[str, dict[str, list[tuple[int, ConditionNumber]]]] = {}
    for name, moments in found.items():
        row, reading = name.split(": ") if scale == "vit-s" else (name, "")
        pictures.setdefault(reading, {})[row] = _by_depth(moments[0])
    return pictures


def _by_depth(moment: Moment) -> list[tuple[int, ConditionNumber]]:
    return [(block["index"], table6_number(block)) for block in moment.measurement["blocks"]]


def _tokens(model: nn.Module, pixels: Given) -> list[dict[str, Any]]:
    chosen = evenly_spaced_blocks(len(block_views(model)))
    return measure_conditioning(model, pixels, blocks=chosen, parts=("tokens",)).as_json()["blocks"]
