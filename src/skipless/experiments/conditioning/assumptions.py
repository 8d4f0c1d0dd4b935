"""Eq. 6 and A.4.4, which the paper assumes and does not check, in the models of Table 1 before and after training."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import nn

from skipless.choices import ROWS, Row
from skipless.conditioning.measurement.block_incoherence import check_assumptions
from skipless.conditioning.measurement.network_jacobian import Rows
from skipless.conditioning.measurement.tracking import first_images
from skipless.data import ImageData, load_images
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.experiments.conditioning.assumptions_table import assumptions_markdown
from skipless.experiments.conditioning.kept import cached, seen
from skipless.experiments.conditioning.page import write_conditioning
from skipless.experiments.conditioning.recipe import made, model_recipe, planned
from skipless.experiments.conditioning.scales import ConditioningScale
from skipless.recipes import Recipe, open_model

# More parameters in every sub-block than rows: the class token's output, and tokens over the image.
WIDE = {"class token": Rows(images=4, tokens=1, outputs=16), "tokens spread": Rows(images=2, tokens=4, outputs=8)}
# The other way round takes a model so narrow that all parameters are fewer than the rows of a few images.
NARROW = {"embed_dim": 8, "depth": 2}
TALL = Rows(images=13, tokens=17, outputs=8)


def reproduce_assumptions(
    scale: ConditioningScale,
    out: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Both sides of Eq. 6 and Eq. 37, rho and tau, with skips, without, and with the init; before and after training.

    `digits` (and `fashion`) take the runs of Tables 5 and 6, training what is missing; `init` leaves training out. A
    model of width 8 is checked with more rows than parameters, the only case in which Eq. 37 is proved.

    Raises:
        InputError: for other scales, and all that `reproduce_tables` refuses.
    """
    if scale not in ("digits", "fashion", "init"):
        raise InputError(f"the assumptions are checked at scales digits, fashion and init, not at {scale!r}")
    small = "digits" if scale == "init" else scale
    recipes: dict[Row, Recipe] = {row: model_recipe(small, row, seed=seed, data=data) for row in ROWS}
    images = load_images(recipes["skip"].data)
    if scale == "init":  # runs that are trained for this refuse it themselves, and those of before go on
        recipes["skip"].model.check_covers(images.image_size, recipes["skip"].data.data)
    pixels = first_images(images, TALL.images)
    folders: Mapping[Row, Path] = {}
    if scale != "init":
        folders = made(planned(scale, seed=seed, data=data, epochs=epochs), scale, out, jobs)
    rows = []
    for row, when, name, model, asked in _cases(recipes, folders, images, seed):
        file = out / f"assumptions-seed{seed}" / f"{row}-{when}-{name}.json".replace(" + ", "-").replace(" ", "-")
        check = partial(check_assumptions, model, pixels, asked)
        found = cached(file, seen(model, pixels) | asdict(asked), lambda check=check: check().as_json())
        rows.append({"model": row, "when": when, "rows": name, **found})
    return write_conditioning(
        out,
        "assumptions",
        {"assumptions.md": assumptions_markdown(rows), "assumptions.json": rows},
        scale=scale,
        setting=_setting(recipes["skip"], scale, epochs),
        seed=seed,
        command=command,
        folders=folders,
    )


def _cases(
    recipes: Mapping[Row, Recipe], folders: Mapping[Row, Path], images: ImageData, seed: int
) -> Iterator[tuple[Row, str, str, nn.Module, Rows]]:
    """What is checked: row, whether trained, the name of the Jacobian's rows, the model, these rows."""
    for row, recipe in recipes.items():
        models = {"init": recipe.model.build(images, seed)}
        if folders:
            models["trained"] = open_model(str(folders[row])).model
        for when, model in models.items():
            for name, rows in WIDE.items():
                yield row, when, name, model, rows
        narrow = recipe.with_(model__kwargs={**recipe.model.kwargs, **NARROW})
        yield row, "init", "width 8, all tokens", narrow.model.build(images, seed), TALL


def _setting(recipe: Recipe, scale: ConditioningScale, epochs: int | None) -> str:
    when = (
        "at initialisation"
        if scale == "init"
        else f"before and after {counted(epochs or recipe.fit.epochs, 'epoch')}, SOAP"
    )
    return f"{recipe.model.title}, {recipe.data.data}, {when}, seed {recipe.fit.seed}"
