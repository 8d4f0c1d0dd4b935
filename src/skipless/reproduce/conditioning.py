"""Tables 5 and 6 and Figure 6: conditioning at initialisation and through training, ours beside the paper's."""

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from skipless.conditioning.measure import measure_conditioning
from skipless.conditioning.measured import At
from skipless.data import ImageData, load_images
from skipless.errors import InputError
from skipless.evaluators.feature_build import weights_hash
from skipless.init import SkiplessInit
from skipless.models import create_model
from skipless.models.tokens import token_model
from skipless.recipes import Recipe, open_model, table1
from skipless.recipes.conditioning import depths, first_images, table5, training_measure
from skipless.recipes.read import refuse_other_recipe
from skipless.recipes.table1 import Cell, Row
from skipless.recipes.table1 import Scale as RunScale
from skipless.report.conditioning import Moment, Number, read_moments, table5_markdown, table6_markdown, table6_number
from skipless.reproduce.files import load_figures, write_files
from skipless.reproduce.table1 import describe, slug, training_command
from skipless.sweep import Job, run_jobs
from skipless.training.files import read_json

ConditioningScale = Literal["digits", "fashion", "init", "vit-s", "paper"]
ROWS: tuple[Row, ...] = ("skip", "skipless", "skipless + init")
SHARE = 15  # measurements of a run: the paper's tables have shares of the training in fifteenths
TOKEN_IMAGES = 64  # of Figure 6
IMAGENET = 1_281_167
VIT_S = "vit_small_patch16_224"
DINO = SkiplessInit.preset("dino_vit_small")
# Table 6 must have used a part of K's 75,648 rows, or a way that is not stated: 8 tokens, and all. The theory (A.4.1)
# supposes N(0, I) tokens in every block; those of the forward pass are what the model has.
VIT_S_TOKENS: tuple[tuple[int | None, At], ...] = ((8, "gaussian"), (8, "normed"), (None, "normed"))
VIT_S_STEPS = 600  # of Lanczos, half a minute of one core a block; resolves kappa up to about 1,800
# One image of N(0, 1) pixels: patch embeddings of it are the isotropic tokens that A.4.1 supposes.
VIT_S_MODELS: dict[str, dict[str, Any]] = {
    "skip": {"skip": True},
    "skipless": {},
    "skipless + init": {"init": DINO},
    "skipless + init, logits compensated": {"init": SkiplessInit(**{**vars(DINO), "logit_scale": "compensated"})},
}


def reproduce_tables(
    what: Literal["table5", "table6"],
    scale: ConditioningScale,
    out: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Table 5 (kappa(J J^T)) or Table 6 (kappa by layer): run and measure what is missing, lay ours beside the paper's.

    Args:
        what: the table.
        scale: `digits` and `fashion` train and measure the three models of `table1` with SOAP; `init` measures those of
            digits before training; `vit-s` measures ViT-S before training, in minutes; `paper` reads finished runs, and
            otherwise says what to run.
        out: folder of the report; the runs go into `out/runs` and serve both tables and Figure 6.
        seed: of weights, order and augmentation.
        data: another place for the data.
        jobs: runs at a time.
        epochs: another length.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that cannot be used, runs that fail, or folders that hold other runs.
    """
    figures = load_figures()
    if scale == "vit-s":
        found, setting = _vit_s(what, out, seed), f"{VIT_S} at initialisation, an image of N(0, 1) pixels, seed {seed}"
    elif scale == "init":
        images = load_images(table1("digits", data=data).data)
        recipes = {row: table1("digits", row, "soap", seed=seed, data=data) for row in ROWS}
        found = {row: _at_init(recipe, images, out / f"init-seed{seed}", row) for row, recipe in recipes.items()}
        setting = f"{describe(recipes['skip'])}, digits, at initialisation, seed {seed}"
    else:
        recipes = planned(scale, seed=seed, data=data, epochs=epochs)
        folders = made(recipes, scale, out, jobs)
        found = {row: read_moments(folder) for row, folder in folders.items()}
        one = recipes["skip"]
        setting = f"{describe(one)}, {one.data.data}, {one.fit.epochs} epochs, SOAP, seed {seed}"
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
            files["-".join(["table6-depth", *_words(reading)]) + ".png"] = figures.depth_figure(series, label, title)
    return write_files(out, files)


def reproduce_figure6(
    scale: ConditioningScale,
    out: Path,
    *,
    seed: int = 0,
    data: str | None = None,
    jobs: int | None = None,
    epochs: int | None = None,
) -> dict[str, Path]:
    """Figure 6: tokens after the norm before each attention, with the paper's initialisation and after training.

    The scales are those of `reproduce_tables`; `init` and `vit-s` have no trained column.
    """
    figures = load_figures()
    models: dict[str, nn.Module] = {}
    if scale == "vit-s":
        pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
        models["initialisation"] = create_model(VIT_S, init=DINO, seed=seed)
    else:
        small = "digits" if scale == "init" else scale
        recipe = table1(small, "skipless + init", "soap", seed=seed, data=data)
        images = load_images(recipe.data)
        pixels = first_images(images, min(TOKEN_IMAGES, len(images.val)))
        models["initialisation"] = recipe.model.build(images, seed)
        if scale != "init":
            recipes = planned(scale, seed=seed, data=data, epochs=epochs)
            folder = made({"skipless + init": recipes["skipless + init"]}, scale, out, jobs)["skipless + init"]
            models["trained"] = open_model(str(folder)).model
    columns = {name: _tokens(model, pixels) for name, model in models.items()}
    title = f"Figure 6 at scale {scale}: skipless + init, {len(pixels)} images"
    files = {"figure6.md": _figure6_markdown(columns), "figure6.json": columns}
    return write_files(out, {**files, "figure6.png": figures.tokens_figure(columns, title)})


def planned(scale: RunScale, *, seed: int, data: str | None, epochs: int | None) -> dict[Row, Recipe]:
    """The three runs of a scale, each measured at every fifteenth of its training."""
    recipes: dict[Row, Recipe] = {}
    for row in ROWS:
        recipe = table1(scale, row, "soap", seed=seed, data=data).with_(fit__epochs=epochs)
        samples = IMAGENET if scale == "paper" else len(load_images(recipe.data).train)
        recipes[row] = recipe.with_(fit__measure_every=max(1, recipe.fit.total_steps(samples) // SHARE))
    return recipes


def made(recipes: Mapping[Row, Recipe], scale: RunScale, out: Path, jobs: int | None) -> dict[Row, Path]:
    """Their folders, once they are finished.

    Raises:
        InputError: if a run failed, or, at the paper's scale, is still to be made.
    """
    folders: dict[Row, Path] = {
        row: out / "runs" / f"{slug(Cell(row, 'soap'))}-seed{recipe.fit.seed}" for row, recipe in recipes.items()
    }
    if scale == "paper":
        missing: list[Row] = [row for row in recipes if not (folders[row] / "result.json").exists()]
        if missing:
            commands = [_measured_command(recipes[row], folders[row]) for row in missing]
            head = (
                "The paper trains ViT-S by DINO for 300 epochs (days on 8 GPUs a row); nearest is Table 1's ViT-B. "
                f"{len(missing)} measured runs are not finished; run each of"
            )
            raise InputError("\n  ".join([head, *commands]))
        for row, recipe in recipes.items():
            refuse_other_recipe(folders[row], recipe)
    else:
        samples = len(load_images(next(iter(recipes.values())).data).train)
        run_jobs(
            [Job((row, "SOAP"), one, folders[row], one.fit.total_steps(samples)) for row, one in recipes.items()],
            parallel=jobs,
        )
    unmeasured = [str(folder) for folder in folders.values() if not (folder / "measurements.jsonl").exists()]
    if unmeasured:
        raise InputError(f"{unmeasured[0]} was trained without --measure-every; move it away, or change --out")
    return folders


def cached(file: Path, asked: Any, make: Callable[[], Any]) -> Any:
    """What a file holds, so that a killed command goes on; made and written if it is not there, or of something else.

    Args:
        file: holds what was asked for and the value.
        asked: all that the value depends on, as JSON.
        make: gives the value, as JSON.
    """
    asked = json.loads(json.dumps(asked))
    held = read_json(file)
    if not isinstance(held, dict) or held.get("asked") != asked:
        held = {"asked": asked, "value": json.loads(json.dumps(make()))}
        write_files(file.parent, {file.name: held})
    return held["value"]


def seen(model: nn.Module, pixels: torch.Tensor) -> dict[str, str]:
    """What a measurement depends on: weights and images."""
    return {
        "weights": weights_hash(token_model(model)),
        "images": hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest(),
    }


def _at_init(recipe: Recipe, images: ImageData, folder: Path, row: str) -> tuple[Moment, ...]:
    model = recipe.model.build(images, recipe.fit.seed)
    asked = seen(model, first_images(images, min(TOKEN_IMAGES, len(images.val))))
    file = folder / f"{row.replace(' + ', '-')}.json"
    return (Moment(0.0, cached(file, asked, lambda: training_measure(images)(model))),)


def _vit_s(what: str, out: Path, seed: int) -> dict[str, tuple[Moment, ...]]:
    pixels = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    found = {}
    every: tuple[tuple[int | None, At], ...] = ((None, "normed"),)
    readings = every if what == "table5" else VIT_S_TOKENS
    for row, (tokens, at) in ((row, reading) for reading in readings for row in VIT_S_MODELS):

        def measure(row: str = row, tokens: int | None = tokens, at: At = at) -> Any:
            model = create_model(VIT_S, seed=seed, **VIT_S_MODELS[row])
            if what == "table5":
                empty = {"blocks": [], "images": len(pixels), "dtype": "float32"}
                return {**empty, "networks": table5(model, pixels, double=False)}
            return measure_conditioning(
                model,
                pixels[:1],
                blocks=depths(12),
                parts=("attn", "maps", "tokens"),
                forms="own",
                at=at,
                tokens=tokens,
                inverse_rows=4096,  # of 8 tokens
                max_iterations=VIT_S_STEPS,
                seed=seed,
                progress=lambda line: print(f"{row}: {line}"),
            ).as_json()

        kind = "N(0, I) tokens" if at == "gaussian" else "tokens"
        name = row if what == "table5" else f"{row}: {tokens or 197} {kind}"
        file = out / f"vit-s-seed{seed}" / f"{'-'.join([what, *_words(name)])}.json"
        asked = {
            "model": f"{VIT_S} {VIT_S_MODELS[row]}",
            "seed": seed,
            "tokens": tokens,
            "at": at,
            "steps": VIT_S_STEPS,
        }
        found[name] = (Moment(0.0, cached(file, asked, measure)),)
    return found


def _by_reading(
    found: Mapping[str, tuple[Moment, ...]], scale: ConditioningScale
) -> dict[str, dict[str, list[tuple[int, Number]]]]:
    """A picture for each choice of tokens, its lines by model."""
    pictures: dict[str, dict[str, list[tuple[int, Number]]]] = {}
    for name, moments in found.items():
        row, reading = name.split(": ") if scale == "vit-s" else (name, "")
        pictures.setdefault(reading, {})[row] = _by_depth(moments[0])
    return pictures


def _words(text: str) -> list[str]:
    return re.findall(r"[0-9A-Za-z]+", text)


def _by_depth(moment: Moment) -> list[tuple[int, Number]]:
    return [(block["index"], table6_number(block)) for block in moment.measurement["blocks"]]


def _tokens(model: nn.Module, pixels: torch.Tensor) -> list[dict[str, Any]]:
    chosen = depths(12)
    return measure_conditioning(model, pixels, blocks=chosen, parts=("tokens",)).as_json()["blocks"]


def _figure6_markdown(columns: Mapping[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| model | block | mean | std | excess kurtosis | isotropy | isotropy if Gaussian | covariance |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for name, blocks in columns.items():
        for block in blocks:
            found = block["tokens"][0]
            rank = f"rank {found['covariance']['rank']} of {found['dim']}"
            numbers = " | ".join(f"{found[key]:.2f}" for key in _MOMENTS)
            lines.append(f"| {name} | {block['index']} | {numbers} | {rank} |")
    return "\n".join([*lines, "", _FIGURE6, ""])


_MOMENTS = ("mean", "std", "excess_kurtosis", "isotropy", "gaussian_isotropy")
_FIGURE6 = (
    "Entries of the tokens after the norm before the attention. Isotropy is tr(C)^2 / (d tr(C^2)), the share of "
    "directions that the tokens use; beside it what as many N(0, I) tokens give. The paper shows histograms "
    "of the entries, and concludes from them that tokens are nearly N(0, I); isotropy is what they cannot show."
)


def _measured_command(recipe: Recipe, folder: Path) -> str:
    return f"{training_command(recipe, folder)} {shlex.join(['--measure-every', str(recipe.fit.measure_every)])}"
