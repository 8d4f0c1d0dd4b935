"""What the room trains: models of Table 1 on half of the classes, then adapters of them on the other half."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from skipless.choices import Row
from skipless.data.config import ImageConfig
from skipless.errors import InputError
from skipless.experiments.sine.scales import SineScale, TuningMethod
from skipless.optim.config import OptimizerConfig
from skipless.recipes.recipe import Recipe
from skipless.recipes.supervised import SupervisedRecipe
from skipless.registry import recipe_named

if TYPE_CHECKING:
    from torch.nn import Module

    from skipless.data import ImageData
else:  # a recipe is described without torch, which is imported when it is run
    ImageData = Module = Any

_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CLASSES: Mapping[SineScale, tuple[str, ...]] = {"digits": tuple("0123456789"), "fashion": _FASHION}
"""Classes of a scale's data: a model is trained on the first half of them, and fine-tuned to the second."""
BASE_EPOCHS: Mapping[SineScale, int] = {"digits": 30, "fashion": 2}
"""Passes over the images of the first half; of Fashion-MNIST as many steps as Table 1 has."""
EPOCHS: Mapping[SineScale, int] = {"digits": 15, "fashion": 2}
"""Passes over the images of the second half."""
ALPHA_OVER_RANK = 2.0
"""alpha / r, as the authors have it (r = 8, alpha = 16)."""
_BASE_OPTIMIZER = "soap"
_LOG_EVERY = 5  # steps: runs have a few hundred

# Where the grids of `--tune` start from. Adam moves B by the rate, whatever alpha is, and the weight by alpha / r times
# as much: with alpha' the rate is alpha' / alpha times smaller, by which the weight moves as LoRA's does.
_RATE: Mapping[TuningMethod, float] = {
    "head": 1e-2,
    "all weights": 3e-3,
    "lora": 1e-2,
    "lora, alpha'": 1e-2,
    "sine": 1e-2,
    "dora": 1e-2,
}


@dataclass(frozen=True)
class AdapterSettings:
    """What of a trained model is trained on.

    Attributes:
        method: an adapter of every linear map in the blocks, and a new head; the new head alone; or all weights.
        rank: of an adapter; 0 where there is none.
        frequency: omega of a sine, or of the alpha' that it equals to first order; 0 where there is none.
        alpha_over_rank: alpha / r.

    Raises:
        InputError: for a rank below 1, or a frequency that is not above 0.
    """

    method: TuningMethod
    rank: int = 0
    frequency: float = 0.0
    alpha_over_rank: float = ALPHA_OVER_RANK

    def __post_init__(self) -> None:
        if self.is_adapter and self.rank < 1:
            raise InputError(f"--ranks {self.rank}: give 1 or more")
        if self.has_frequency and not (self.frequency > 0 and math.isfinite(self.frequency)):
            raise InputError(f"--frequencies {self.frequency:g}: give numbers above 0")

    @property
    def is_adapter(self) -> bool:
        """Whether weights get an adapter."""
        return self.method not in ("head", "all weights")

    @property
    def has_frequency(self) -> bool:
        """Whether a frequency changes anything."""
        return self.method in ("sine", "lora, alpha'")


class SineCell(NamedTuple):
    """A method, its rank and its frequency; 0 where the method has none."""

    method: TuningMethod
    rank: int = 0
    frequency: float = 0.0

    @property
    def slug(self) -> str:
        """Its name as part of a path.

        Example:
            >>> SineCell("lora, alpha'", 4, 200.0).slug, SineCell("all weights").slug
            ('lora-alpha-w200-r4', 'all-weights')
        """
        words = self.method.replace(", alpha'", "-alpha").replace(" ", "-")
        frequency = f"-w{self.frequency:g}" if self.frequency else ""
        return f"{words}{frequency}{f'-r{self.rank}' if self.rank else ''}"

    @property
    def line(self) -> str:
        """The method and its frequency in words, which is a line of a picture.

        Example:
            >>> SineCell("sine", 4, 200.0).line, SineCell("lora", 4).line
            ('sine, w = 200', 'lora')
        """
        return f"{self.method}, w = {self.frequency:g}" if self.frequency else self.method


@dataclass(frozen=True, kw_only=True, repr=False)
class AdaptedRecipe(SupervisedRecipe):
    """A trained model that is fine-tuned to other classes.

    Attributes:
        base: the run folder of the model, as seen from this run's folder, so that both may be moved.
        adapter: what is trained.
    """

    base: str
    adapter: AdapterSettings

    def _summary(self) -> str:
        rank = f" of rank {self.adapter.rank}" if self.adapter.is_adapter else ""
        return f"{super()._summary()}, {self.adapter.method}{rank} of {self.base}"

    def _model(self, data: ImageData, out: Path) -> Module:
        from skipless.experiments.sine.adapted import adapted_model

        return adapted_model(self, data, out)


def base_recipe(scale: SineScale, row: Row = "skip", *, seed: int = 0, data: str | None = None) -> Recipe:
    """Table 1's run of the scale on the first half of the classes.

    Example:
        >>> base_recipe("digits").data.classes
        ('0', '1', '2', '3', '4')
    """
    made: Recipe = recipe_named("table1")(scale, row, _BASE_OPTIMIZER, seed=seed, data=data)
    return made.with_(data__classes=_halves(scale)[0], fit__epochs=BASE_EPOCHS[scale])


def adapted_recipe(
    scale: SineScale,
    cell: SineCell,
    *,
    base: str,
    row: Row = "skip",
    seed: int = 0,
    data: str | None = None,
    epochs: int | None = None,
) -> AdaptedRecipe:
    """One run of the room: AdamW without weight decay, as the authors have it, on the second half of the classes.

    Args:
        scale: of the data.
        cell: what is trained.
        base: run folder of the model, as seen from the run's own.
        row: of the model.
        seed: of A, of the head, and of the order of images.
        data: another place for it.
        epochs: another length.

    Raises:
        InputError: for a method, a rank or a frequency that does not exist.

    Example:
        >>> recipe = adapted_recipe("digits", SineCell("sine", 4, 200.0), base="../base-seed0")
        >>> recipe.data.classes, recipe.adapter.rank
        (('5', '6', '7', '8', '9'), 4)
    """
    if cell.method not in get_args(TuningMethod):
        raise InputError(f"no method {cell.method!r}; there is {', '.join(get_args(TuningMethod))}")
    made = base_recipe(scale, row, seed=seed, data=data)
    assert isinstance(made, SupervisedRecipe)
    settings = AdapterSettings(cell.method, cell.rank, cell.frequency)
    width = made.model.kwargs["embed_dim"]
    lower = max(1.0, settings.frequency / math.sqrt(width))
    images: ImageConfig = made.data
    return AdaptedRecipe(
        name="sine",
        scale=scale,
        model=made.model,
        data=images,
        targets=made.targets,
        optimizer=OptimizerConfig("adamw", lr=float(f"{_RATE[cell.method] / lower:.2g}"), weight_decay=0.0),
        schedule=made.schedule,
        fit=made.fit,
        base=base,
        adapter=settings,
    ).with_(
        data__classes=_halves(scale)[1],
        fit__epochs=EPOCHS[scale] if epochs is None else epochs,
        fit__log_every=_LOG_EVERY,
    )


def _halves(scale: SineScale) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if scale not in CLASSES:
        raise InputError(f"no scale {scale!r}; there is {', '.join(CLASSES)}")
    names = CLASSES[scale]
    return names[: len(names) // 2], names[len(names) // 2 :]
