"""SupervisedRecipe: a classifier trained on labelled images (section 6.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from skipless.data.config import ImageConfig
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.recipes.begun import is_begun, recorded
from skipless.recipes.recipe import Evaluate, Loaded, Passes, Prepared, Recipe
from skipless.tasks.targets import SupervisedConfig
from skipless.training.config import FitConfig

if TYPE_CHECKING:
    from torch.nn import Module

    from skipless.data import ImageData
    from skipless.training import FitResult
else:  # a recipe is described without torch, which is imported when it is run
    FitResult = ImageData = Module = Any

BATCH = 256  # images of an evaluation that go through the model at once


@dataclass(frozen=True, kw_only=True, repr=False)
class SupervisedRecipe(Recipe):
    """One supervised run.

    Attributes:
        data: its images.
        targets: mixup, cutmix and label smoothing.
    """

    data: ImageConfig
    targets: SupervisedConfig
    metric: ClassVar[str] = "top1"
    classifies: ClassVar[bool] = True
    options: ClassVar[Mapping[str, str]] = {**Recipe.options, "weight_decay": "optimizer__weight_decay"}

    def load(self) -> Loaded:
        """The images, training and validation."""
        from skipless.data import load_images

        data = load_images(self.data)
        return Loaded(data.train, data)

    def prepare(self, out: Path, loaded: Loaded) -> Prepared:
        """The classifier; a folder that has learned other classes is refused."""
        from skipless.tasks import Supervised

        data = loaded.labelled
        assert data is not None
        if is_begun(out):
            _refuse_other_classes(out, data.classes, self.data.data)
        else:  # what was begun before this was refused goes on
            self.model.check_covers(data.image_size, self.data.data)
        task = Supervised(self._model(data, out), len(data.classes), self.targets)
        return Prepared(task, self.evaluation(data), {"classes": data.classes})

    def blank_task(self, steps: int, classes: int) -> Module:
        """The classifier for so many classes."""
        from skipless.tasks import Supervised

        model = self.model.build_for(self.data.image_size or 224, 3, classes, 0, blank=True)
        return Supervised(model, classes, self.targets)

    def passes(self, evaluated: int) -> Passes:
        """Every image goes through the model once."""
        return Passes(((self.data.image_size or 224, 1),), (), evaluated)

    def evaluation(self, data: ImageData, most: int | None = None) -> Evaluate:
        """Top-1 accuracy on the validation images."""
        from skipless.data import EvalLoader
        from skipless.data.loading.first import FirstImages
        from skipless.evaluators import top1

        if most is None:
            return lambda model: evaluate_top1(model, data, self.fit)
        count = self.evaluated(data, most)
        return lambda model: top1(model, EvalLoader(FirstImages(data.val, count), batch_size=min(count, BATCH)))

    def evaluated(self, data: ImageData, most: int | None = None) -> int:
        """Validation images."""
        return len(data.val) if most is None else min(len(data.val), most)

    def _model(self, data: ImageData, out: Path) -> Module:
        """The model of a folder's run; where this process takes shards of the first's weights, its shapes alone."""
        import torch

        from skipless.training.processes.launch import takes_shards_only

        if not takes_shards_only(self.fit.strategy):
            return self.model.build(data, self.fit.seed)
        with torch.device("meta"):
            return self.model.build(data, self.fit.seed, blank=True)


def evaluate_top1(model: Module, data: ImageData, config: FitConfig) -> dict[str, float]:
    """Top-1 accuracy on the data's validation images."""
    from skipless.data import EvalLoader, count_workers
    from skipless.evaluators import top1

    workers = count_workers(config.workers, data.val)
    return top1(model, EvalLoader(data.val, batch_size=BATCH, workers=workers))


def recorded_classes(folder: Path) -> tuple[str, ...] | None:
    """Names of the classes that a run has learned, by label; None where its `run.json` does not say them."""
    classes = recorded(folder, "classes")
    return None if classes is None else tuple(classes)


def _refuse_other_classes(out: Path, classes: tuple[str, ...], data: str) -> None:
    before = recorded_classes(out)
    if before is not None and before != classes:
        raise InputError(
            f"{str(out)!r} was trained on {counted(len(before), 'class', 'classes')} ({_ends(before)}), and {data!r} "
            f"now has {len(classes)} ({_ends(classes)}); {_remedy(before, classes, data)}"
        )


def _remedy(before: tuple[str, ...], now: tuple[str, ...], data: str) -> str:
    """What makes the classes agree again: of shards, names that were numbers once need their file away, or back."""
    from skipless.data.shards import find_shards
    from skipless.data.shards.write import CLASSES

    numbers = tuple(str(label) for label in range(len(now)))
    shards = find_shards(data) if len(before) == len(now) and numbers in (before, now) else None
    if shards is None:
        return "give another --out, or the data of before"
    file = str(shards.root / CLASSES)
    if before == numbers:
        return (
            f"it had numbers for names, as without {file!r}, which says which label has which name and changes none: "
            "move that file away, and the same command goes on"
        )
    return f"there is no {file!r} any more to name them: put it back, and the same command goes on"


def _ends(names: tuple[str, ...]) -> str:
    return f"{names[0]!r} to {names[-1]!r}"
