"""Recipe: everything that decides the outcome of a run, as one frozen value; and what runs it.

Supervised training and self-distillation are kinds of recipe: each adds its own parts, and says how they become a task,
its data and its evaluation. Whatever else a run needs stands here, once.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from skipless.choices import Measured, ModelState
from skipless.display import Record, Table
from skipless.display.values import counted, few_words
from skipless.errors import InputError
from skipless.frozen import added, changed, from_json, to_json
from skipless.optim.config import OptimizerConfig
from skipless.recipes.model import ModelConfig, beyond_in_words
from skipless.registry import experiments
from skipless.training.config import FitConfig

if TYPE_CHECKING:
    from typing import Self

    from torch.nn import Module

    from skipless.data import BatchedDataset, ImageData, TextData
    from skipless.training import FitResult
else:  # a recipe is described without torch, which is imported when it is run
    BatchedDataset = FitResult = ImageData = Module = Self = TextData = Any

Evaluate = Callable[[Module], Mapping[str, float]]
Measure = Callable[[Module], Mapping[str, Any]]

ACTIVATION_IMAGES = 64
"""Images that the activations of a model in training are measured at."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up from 0, then a cosine, per step.

    Attributes:
        warmup: its share of the run's steps, 0 to 1.
        final_lr: learning rate at the end of the cosine.
        warmup_steps: its steps, in place of the share.
        final_share: learning rate at the end as a share of the peak's, in place of `final_lr`.
    """

    warmup: float = 0.1
    final_lr: float = 1e-6
    warmup_steps: int | None = added(None)
    final_share: float | None = added(None)

    def warmup_of(self, total: int) -> int:
        """Steps of the warm-up of a run of so many.

        Example:
            >>> ScheduleConfig(0.1).warmup_of(70), ScheduleConfig(warmup_steps=1024).warmup_of(20480)
            (7, 1024)
        """
        return round(self.warmup * total) if self.warmup_steps is None else self.warmup_steps

    def final_of(self, peak: float) -> float:
        """Learning rate at the end, after a peak."""
        return self.final_lr if self.final_share is None else self.final_share * peak


class Loaded(NamedTuple):
    """A recipe's data.

    Attributes:
        train: what is trained on, in batches.
        labelled: images with labels, never augmented but in training; None where there are none to evaluate on.
        text: of a language model, what it is trained and evaluated on.
    """

    train: BatchedDataset
    labelled: ImageData | None
    text: TextData | None = None


class Prepared(NamedTuple):
    """What a recipe hands to the training loop.

    Attributes:
        task: before its first step.
        evaluate: named numbers of its model; None evaluates nothing.
        notes: what `run.json` shall say besides.
    """

    task: Module
    evaluate: Evaluate | None
    notes: Mapping[str, Any]


class Passes(NamedTuple):
    """Views of one training image that go through the model, as (side in pixels, how many).

    Attributes:
        trained: forward and backward.
        forward_only: through a copy of the model that follows it.
        evaluated: images of the validation that pass at each evaluation.
    """

    trained: tuple[tuple[int, int], ...]
    forward_only: tuple[tuple[int, int], ...]
    evaluated: int


KINDS: list[type["Recipe"]] = []
"""Every kind of recipe that has been imported; `skipless.recipes.kinds` and the doors of experiments name ours."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Recipe(Record):
    """One run: model, data, optimizer, schedule and length, and what its kind adds.

    `Recipe(...)` makes the kind that has the given parts: with `targets` a `SupervisedRecipe`, with `task` a
    `DinoRecipe`, with `objective` a `LanguageRecipe`.

    Attributes:
        name: of the experiment, `table1`.
        scale: at which size, `digits`.
        model: what is trained.
        data: on what; its kind says of which type it is.
        optimizer: with which optimizer, at which peak learning rate.
        schedule: of the learning rate.
        fit: how long, and with which seed.
        metric: which number of the evaluation runs are compared by.
        lower_is_better: whether a lower one is better.
        metric_unit: its unit, with the blank before it.
        classifies: whether the model that comes out names classes.
        reads_text: whether it takes token ids, not images.
        outcome: whose weights come out.
        options: what `skipless train` lets one change, by the name of the option: the dotted name of the field.
    """

    name: str
    scale: str
    model: ModelConfig
    data: Any
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    fit: FitConfig
    metric: ClassVar[str] = ""
    lower_is_better: ClassVar[bool] = False
    metric_unit: ClassVar[str] = " %"
    classifies: ClassVar[bool] = False
    reads_text: ClassVar[bool] = False
    outcome: ClassVar[ModelState] = "trained"
    options: ClassVar[Mapping[str, str]] = {
        "lr": "optimizer__lr",
        "epochs": "fit__epochs",
        "batch_size": "fit__batch_size",
        "accumulation": "fit__accumulation",
        "clip_norm": "fit__clip_norm",
        "precision": "fit__precision",
        "alpha": "model__init__alpha",
        "beta": "model__init__beta",
        "c": "model__init__c",
        "mlp_linearity": "model__init__mlp_linearity",
        "attention_diagonal": "model__init__attention_diagonal",
        "last_diagonal": "model__init__last_diagonal",
        "context_heads": "model__init__context_heads",
        "block_lr": "optimizer__block_lr",
        "skip_gain": "model__skip_gain",
        "attention": "model__attention__core",
        "attention_power": "model__attention__power",
        "attention_scale": "model__attention__scale",
        "attention_alpha": "model__attention__alpha",
        "attention_gamma": "model__attention__gamma",
        "attention_rho": "model__attention__rho",
        "attention_queries": "model__attention__queries",
        "workers": "fit__workers",
        "corrupt_limit": "data__corrupt_limit",
        "measure_every": "fit__measure_every",
        "measured": "fit__measured",
        "evaluate_every": "fit__evaluate_every",
        "checkpoint_every": "fit__checkpoint_every",
        "log_every": "fit__log_every",
        "device": "fit__device",
        "strategy": "fit__strategy",
        "compile": "fit__compile",
        "profile": "fit__profile",
        "progress": "fit__progress",
        "tensorboard": "fit__tensorboard",
        "wandb": "fit__wandb",
    }

    def __init_subclass__(cls, **_: Any) -> None:
        """Every subclass is a kind, told by its own parts."""
        KINDS.append(cls)

    def __new__(cls, *_: Any, **parts: Any) -> Self:
        """Of the base class, the kind that has these parts."""
        kind: Any = _kind_of(parts) if cls is Recipe else cls
        return object.__new__(kind)

    def _summary(self) -> str:
        more = beyond_in_words(self.model.attention.title, self.model.skip_gain)
        model = f"{self.model.name}, {'with' if self.model.skip else 'without'} skips{more}"
        length = counted(*((self.fit.epochs, "epoch") if self.fit.steps is None else (self.fit.steps, "step")))
        how = f"{self.optimizer.name} at lr {self.optimizer.lr:g}, {length} of {self.data.data}"
        return f"{self.name} {self.scale}, {model}, {how}, seed {self.fit.seed}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each field, under the dotted name that `with_` takes."""
        rows = list(_settings(self.as_json()))
        return (Table(("field", "value"), rows, self._summary(), align="ll"),)

    def with_(self, **changes: Any) -> Self:
        """A copy in which fields are changed by their dotted name, `optimizer__lr=1e-3`; None changes nothing.

        Example:
            >>> from skipless.recipes import table1
            >>> table1("digits").with_(optimizer__lr=0.01).optimizer.lr
            0.01
        """
        return changed(self, changes)

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain JSON; `from_json` reads it back."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that a `run.json` holds, of whichever kind.

        Raises:
            InputError: if it was written by a version with other fields.
        """
        try:
            return from_json(_kind_of(values) if cls is Recipe else cls, values)  # pyright: ignore[reportReturnType]
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"this run's recipe cannot be read ({error}): made by another version?") from error

    def run(self, out: Path | str, loaded: Loaded | None = None) -> FitResult:
        """Train in the folder `out`; go on where an earlier run stopped, recognise a finished one.

        Args:
            out: the run folder.
            loaded: what `load` gives, if that was done already.

        Raises:
            InputError: whatever of the recipe, the data or the folder cannot be used.
        """
        from skipless.optim import WarmupCosine, build_optimizer
        from skipless.training import fit

        loaded = self.load() if loaded is None else loaded
        measure = self.measure(loaded) if self.fit.measure_every else None
        made = self.prepare(Path(out), loaded)
        total = self.fit.total_steps(len(loaded.train))
        return fit(
            made.task,
            loaded.train,
            build_optimizer(made.task, self.optimizer, scaled=self.fit.precision == "fp16"),
            WarmupCosine(
                self.optimizer.lr,
                total,
                warmup_steps=self.schedule.warmup_of(total),
                final=self.schedule.final_of(self.optimizer.lr),
            ),
            out=out,
            config=self.fit,
            evaluate=made.evaluate,
            measure=measure,
            recipe=self.as_json(),
            notes=made.notes,
        )

    def load(self) -> Loaded:
        """Its data.

        Raises:
            InputError: if the data is missing, corrupt, or cannot be augmented as asked.
        """
        raise NotImplementedError

    def prepare(self, out: Path, loaded: Loaded) -> Prepared:
        """The task before its first step, and how it is evaluated.

        Raises:
            InputError: if the folder holds a run of other data.
        """
        raise NotImplementedError

    def measure(self, loaded: Loaded) -> Measure:
        """What measures the model in training: each of `fit.measured`, always at the same held-out data.

        Raises:
            InputError: if there is nothing to measure it at.
        """
        made = [self.measurement(name, loaded) for name in self.fit.measured]
        return lambda model: {name: value for measure in made for name, value in measure(model).items()}

    def measurement(self, name: Measured, loaded: Loaded) -> Measure:
        """One of the measurements.

        Raises:
            InputError: if there is nothing to measure it at.
        """
        from skipless.conditioning.measurement.tracking import first_images, training_measure
        from skipless.evaluators.quantisation.statistics.tracking import track_activations

        images = loaded.labelled
        if images is None:
            raise InputError(f"measure_every needs validation images in {str(Path(self.data.data) / 'val')!r}")
        if name == "conditioning":
            return training_measure(images)
        return track_activations(first_images(images, min(ACTIVATION_IMAGES, len(images.val))))

    def blank_task(self, steps: int, classes: int) -> Module:
        """The task for so many steps of a run, whose data need not be there; for shapes, on the meta device."""
        raise NotImplementedError

    def passes(self, evaluated: int) -> Passes:
        """What goes through the model for each training image.

        Args:
            evaluated: validation images of the data.
        """
        raise NotImplementedError

    def evaluation(self, data: Any, most: int | None = None) -> Evaluate:
        """How a run evaluates its model, on at most so many images of a split, or tokens of its text."""
        raise NotImplementedError

    def evaluated(self, data: Any, most: int | None = None) -> int:
        """How many images or tokens that is."""
        raise NotImplementedError

    def bare(self) -> Self:
        """The same training without evaluations, records and files on its way."""
        return self.with_(
            fit__evaluate_every=0,
            fit__evaluate_steps=0,
            fit__checkpoint_every=2**31,
            fit__measure_every=0,
            fit__progress="none",
            fit__tensorboard=False,
            fit__wandb=False,
        )


def _kind_of(parts: Mapping[str, Any]) -> type[Recipe]:
    """The kind of recipe whose own mandatory parts are all among these, and most."""
    for module in ("skipless.recipes.kinds", *(module for one in experiments() for module in one.kinds)):
        importlib.import_module(module)
    shared = {part.name for part in fields(Recipe)}
    found: tuple[int, type[Recipe] | None] = (0, None)
    for kind in KINDS:
        own = {part.name for part in fields(kind) if part.default is part.default_factory is MISSING} - shared
        if len(own) > found[0] and own <= parts.keys():
            found = len(own), kind
    if found[1] is not None:
        return found[1]
    if not parts:
        raise TypeError("it is empty")
    raise TypeError(f"no kind of recipe has only {', '.join(map(repr, parts))}")


def run(recipe: Recipe, out: Path, data: ImageData | None = None) -> FitResult:
    """Train as a recipe says in the folder `out`; go on where an earlier run stopped, recognise a finished one.

    Args:
        recipe: what to train, of any kind.
        out: the run folder.
        data: what `recipe.data` names, if it is loaded already.

    Raises:
        InputError: whatever of the recipe, the data or the folder cannot be used.
    """
    return recipe.run(out, None if data is None else Loaded(data.train, data))


def _settings(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Every field by its dotted name, and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{above}{name}__")
        else:
            yield f"{above}{name}", few_words(value)
