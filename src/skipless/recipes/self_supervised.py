"""DinoRecipe: a backbone trained without labels, by self-distillation (section 6.2, A.2, A.6)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from skipless.choices import ModelState
from skipless.data.config import ImageConfig
from skipless.data.multicrop.config import MultiCropConfig
from skipless.errors import InputError
from skipless.recipes.neighbours_config import NeighboursConfig
from skipless.recipes.recipe import Evaluate, Loaded, Passes, Prepared, Recipe
from skipless.tasks.dino.config import DINOConfig

if TYPE_CHECKING:
    from typing import Self

    from torch.nn import Module

    from skipless.data import ImageData
    from skipless.tasks import DINO
else:  # a recipe is described without torch, which is imported when it is run
    DINO = ImageData = Module = Self = Any


@dataclass(frozen=True, kw_only=True, repr=False)
class DinoRecipe(Recipe):
    """One pretraining. The backbone takes images of any size and has no classifier; labels serve evaluation alone.

    The optimizer's weight decay is where the task's schedule of it starts.

    Attributes:
        data: its images.
        crops: how images are augmented.
        task: the self-distillation.
        neighbours: the evaluation on the way.
        keep_every: epochs between teachers that are kept as files, for evaluations afterwards; the last is kept, too.
            A multiple of `fit.evaluate_every`; 0 keeps none.

    Raises:
        InputError: if two parts contradict each other.
    """

    data: ImageConfig
    crops: MultiCropConfig
    task: DINOConfig
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    keep_every: int = 0
    metric: ClassVar[str] = "knn_best"
    outcome: ClassVar[ModelState] = "teacher"
    options: ClassVar[Mapping[str, str]] = {
        **Recipe.options,
        "clip_norm": "task__clip_norm",
        "keep_every": "keep_every",
        "pooling": "task__pooling",
        "patch_loss": "task__patch_loss",
        "mask_share": "task__mask_share",
        "mask_ratio": "task__mask_ratio",
        "mask_spread": "task__mask_spread",
        "mask_shape": "task__mask_shape",
        "teacher_patch_temp": "task__teacher_patch_temp",
    }

    def __post_init__(self) -> None:
        if self.optimizer.weight_decay != self.task.weight_decay:
            raise InputError(
                f"optimizer.weight_decay {self.optimizer.weight_decay} is not where the schedule of "
                f"task.weight_decay {self.task.weight_decay} starts; give both the same"
            )
        if self.crops.pixels != "float32":
            raise InputError(f"crops.pixels {self.crops.pixels!r}: the task takes normalised crops; give 'float32'")
        if self.fit.clip_norm is not None:
            raise InputError("fit.clip_norm: DINO clips on its own; give task.clip='global' and task.clip_norm instead")
        if self.fit.steps is not None or self.fit.evaluate_steps:
            raise InputError("fit.steps, fit.evaluate_steps: DINO's schedules count epochs; give fit.epochs instead")
        between = self.fit.evaluate_every
        if self.keep_every < 0 or (self.keep_every and (not between or self.keep_every % between)):
            raise InputError(
                f"keep_every {self.keep_every}: teachers are kept as they are evaluated, fit.evaluate_every {between}; "
                "give a multiple of that, or 0"
            )

    def load(self) -> Loaded:
        """The crops; and the images with their labels where the folder has `train/CLASS/` and `val/CLASS/`."""
        from skipless.data.multicrop import load_multicrop

        crops = load_multicrop(self.data.data, self.crops, corrupt_limit=self.data.corrupt_limit)
        return Loaded(crops, self._labelled())

    def prepare(self, out: Path, loaded: Loaded) -> Prepared:
        """Student and teacher; the teacher is evaluated where there are labels."""
        from skipless.data.images import pixel_statistics
        from skipless.recipes.export import note_of
        from skipless.recipes.source import twin_name
        from skipless.recipes.teacher_snapshots import keep_teachers

        total = self.fit.total_steps(len(loaded.train))
        task, data = self.build_task(total, total // self.fit.epochs), loaded.labelled
        evaluate: Evaluate | None = None if data is None else self.evaluation(data)
        if self.keep_every:
            statistics = pixel_statistics(self.data)
            beyond = {"attention": self.model.attention, "skip_gain": self.model.skip_gain}
            note = note_of(twin_name(self), self.model.kwargs, statistics, **beyond)
            evaluate = keep_teachers(task, out, self.keep_every, self.fit.epochs, evaluate, note)
        return Prepared(task, evaluate, {})

    def build_task(self, total_steps: int, steps_per_epoch: int, *, blank: bool = False) -> DINO:
        """The student and its teacher before the first step, a function of the seed."""
        from skipless.tasks import DINO

        return DINO(
            self.backbone(blank=blank),
            self.task,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            seed=self.fit.seed,
        )

    def backbone(self, *, blank: bool = False) -> Module:
        """The backbone before the first step; a blank one is to be overwritten."""
        return self.model.build_for(self.data.image_size or 224, 3, 0, self.fit.seed, blank=blank)

    def blank_task(self, steps: int, classes: int) -> Module:
        """Student and teacher; classes are not asked for."""
        return self.build_task(steps, steps // self.fit.epochs, blank=True).to("meta")

    def passes(self, evaluated: int) -> Passes:
        """All crops go through the student, the global ones through the teacher, too."""
        crops = self.crops
        large = (crops.global_size, self.task.global_crops)
        trained = (large, (crops.local_size, crops.local_crops)) if crops.local_crops else (large,)
        return Passes(trained, (large,), self.neighbours.train + self.neighbours.val)

    def evaluation(self, data: ImageData, most: int | None = None) -> Evaluate:
        """k-NN of every block of the teacher, on the feature that is trained: class token, or mean of the patches."""
        from skipless.recipes.teacher_knn import teacher_neighbours

        return teacher_neighbours(data, self._asked(most), self.task.pooling)

    def evaluated(self, data: ImageData, most: int | None = None) -> int:
        """Training images that vote, and validation images."""
        asked = self._asked(most)
        return min(asked.train, len(data.train)) + min(asked.val, len(data.val))

    def bare(self) -> Self:
        """Without teachers that are kept, too."""
        return super(DinoRecipe, replace(self, keep_every=0)).bare()

    def _asked(self, most: int | None) -> NeighboursConfig:
        asked = self.neighbours
        return asked if most is None else replace(asked, train=min(asked.train, most), val=min(asked.val, most))

    def _labelled(self) -> ImageData | None:
        """The images with their labels, not augmented; None where the folder has no validation images."""
        from skipless.data import load_images
        from skipless.data.shards import find_shards

        shards = find_shards(self.data.data)
        held = shards.split("val").files if shards else (Path(self.data.data).expanduser() / "val").is_dir()
        return load_images(replace(self.data, augmentation="none")) if held else None
