"""Recipe: everything that decides the outcome of a run, as one frozen value; and what runs it."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from skipless.data import EvalLoader, ImageConfig, ImageData, count_workers, load_images
from skipless.errors import InputError
from skipless.evaluators import top1
from skipless.init import SkiplessInit
from skipless.models import create_model
from skipless.optim import OptimizerConfig, WarmupCosine, build_optimizer
from skipless.recipes.conditioning import training_measure
from skipless.tasks import Supervised, SupervisedConfig
from skipless.training import FitConfig, FitResult, fit
from skipless.training.checkpoint import CHECKPOINT, PREVIOUS
from skipless.training.devices import takes_shards_only
from skipless.training.files import read_json


@dataclass(frozen=True)
class ModelConfig:
    """A timm model, with its skips or without, and how it starts.

    Attributes:
        name: timm's name of the residual model.
        skip: keep the skip connections.
        init: the paper's scheme; None leaves timm's own initialisation.
        kwargs: for `timm.create_model`; image size, channels and classes come from the data.
    """

    name: str = "vit_base_patch16_224"
    skip: bool = False
    init: SkiplessInit | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def build(self, data: ImageData, seed: int) -> nn.Module:
        """The model for some data, its weights a function of the seed.

        Raises:
            InputError: if timm has no such model, or refuses the keywords, or the images are smaller than a patch.
        """
        return self.build_for(data.image_size, data.channels, len(data.classes), seed)

    def build_for(self, image_size: int, channels: int, classes: int, seed: int) -> nn.Module:
        """The model for images of a size in pixels; see `build`."""
        patch = self.kwargs.get("patch_size") or _patch_size(self.name)
        if patch is not None and image_size < patch:
            raise InputError(f"images of {image_size} pixels are smaller than a patch of {patch} of {self.name}")
        fitted = {"img_size": image_size, "in_chans": channels, "num_classes": classes}
        return create_model(self.name, skip=self.skip, init=self.init, seed=seed, **{**fitted, **self.kwargs})


def _patch_size(name: str) -> int | None:
    """The patch size that a model's name states."""
    stated = re.search(r"patch(\d+)", name)
    return int(stated[1]) if stated else None


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up from 0, then a cosine, per step.

    Attributes:
        warmup: its share of the run's steps, 0 to 1.
        final_lr: learning rate at the end of the cosine.
    """

    warmup: float = 0.1
    final_lr: float = 1e-6


@dataclass(frozen=True)
class Recipe:
    """One run: model, data, targets, optimizer, schedule and length.

    Attributes:
        name: of the experiment, `table1`.
        scale: at which size, `digits`.
        model: what is trained.
        data: on what.
        targets: mixup, cutmix and label smoothing.
        optimizer: with which optimizer, at which peak learning rate.
        schedule: of the learning rate.
        fit: how long, and with which seed.
        metric: which number of the evaluation runs are compared by.
    """

    name: str
    scale: str
    model: ModelConfig
    data: ImageConfig
    targets: SupervisedConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    fit: FitConfig
    metric: ClassVar[str] = "top1"

    def with_(self, **changes: Any) -> "Recipe":
        """A copy in which fields are changed by their dotted name, `optimizer__lr=1e-3`; None changes nothing.

        Example:
            >>> from skipless.recipes import table1
            >>> table1("digits").with_(optimizer__lr=0.01).optimizer.lr
            0.01
        """
        recipe = self
        for path, value in changes.items():
            if value is not None:
                part, _, name = path.partition("__")
                recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{name: value}) if name else value})
        return recipe

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain JSON; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe that a `run.json` holds.

        Raises:
            InputError: if it was written by a version with other fields.
        """
        try:
            model = dict(values["model"])
            model["init"] = SkiplessInit(**model["init"]) if model["init"] else None
            optimizer: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values["optimizer"].items()
            }
            return cls(
                name=values["name"],
                scale=values["scale"],
                model=ModelConfig(**model),
                data=ImageConfig(**values["data"]),
                targets=SupervisedConfig(**values["targets"]),
                optimizer=OptimizerConfig(**optimizer),
                schedule=ScheduleConfig(**values["schedule"]),
                fit=FitConfig(**values["fit"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"this run's recipe cannot be read ({error}): made by another version?") from error


def run(recipe: Recipe, out: Path, data: ImageData | None = None) -> FitResult:
    """Train as the recipe says in the folder `out`; go on where an earlier run stopped, recognise a finished one.

    Args:
        recipe: what to train.
        out: the run folder.
        data: what `recipe.data` names, if it is loaded already.

    Raises:
        InputError: whatever of the recipe, the data or the folder cannot be used.
    """
    data = load_images(recipe.data) if data is None else data
    before = recorded_classes(out) if any((out / name).exists() for name in (CHECKPOINT, PREVIOUS)) else None
    if before is not None and before != data.classes:
        raise InputError(
            f"{str(out)!r} was trained on {len(before)} classes ({_ends(before)}), and {recipe.data.data!r} now has "
            f"{len(data.classes)} ({_ends(data.classes)}); give another --out, or the data of before"
        )
    model = _build(recipe, data)
    task = Supervised(model, len(data.classes), recipe.targets)
    total = recipe.fit.total_steps(len(data.train))
    warmup = round(recipe.schedule.warmup * total)
    schedule = WarmupCosine(recipe.optimizer.lr, total, warmup_steps=warmup, final=recipe.schedule.final_lr)
    return fit(
        task,
        data.train,
        build_optimizer(task, recipe.optimizer, scaled=recipe.fit.precision == "fp16"),
        schedule,
        out=out,
        config=recipe.fit,
        evaluate=lambda model: evaluate_top1(model, data, recipe.fit),
        measure=training_measure(data) if recipe.fit.measure_every else None,
        recipe=recipe.as_json(),
        notes={"classes": data.classes},
    )


def recorded_classes(folder: Path) -> tuple[str, ...] | None:
    """Names of the classes that a run has learned, by label; None where its `run.json` does not say them."""
    classes = (read_json(folder / "run.json") or {}).get("classes")
    return None if classes is None else tuple(classes)


def _ends(names: tuple[str, ...]) -> str:
    return f"{names[0]!r} to {names[-1]!r}"


def _build(recipe: Recipe, data: ImageData) -> nn.Module:
    """The model; where this process only takes shards of the first one's weights, its shapes alone."""
    if not takes_shards_only(recipe.fit.strategy):
        return recipe.model.build(data, recipe.fit.seed)
    with torch.device("meta"):
        return replace(recipe.model, init=None).build(data, recipe.fit.seed)


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        InputError: if the folder is no run folder, or was written by another version.
    """
    values = recipe_values(folder)
    if values.get("name") == "dino":
        raise InputError(
            f"{str(folder)!r} is a DINO run, which has no classifier: see its features with knn and others"
        )
    return Recipe.from_json(values)


def recipe_values(folder: Path) -> dict[str, Any]:
    """What `run.json` says of a run's recipe, whichever experiment it was.

    Raises:
        InputError: if the folder is no run folder.
    """
    try:
        return dict(json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(folder)!r} is no run folder of `skipless train` (run.json: {error})") from error


def evaluate_top1(model: nn.Module, data: ImageData, config: FitConfig) -> dict[str, float]:
    """Top-1 accuracy on the data's validation images."""
    workers = count_workers(config.workers, data.val)
    return top1(model, EvalLoader(data.val, batch_size=256, workers=workers))
