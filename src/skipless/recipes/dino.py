"""DINO with and without skips: what Tables 2 to 4 and Figures 2 to 9 pretrain (section 6.2, A.2, A.6).

| scale | command | hardware, time | the paper | ours |
|---|---|---|---|---|
| vit_small | `skipless train dino --data IMAGENET` | not stated | Table 2 | not run |
| scenes | `skipless train dino --scale scenes --data DIR` | 12 to 15 minutes of a CPU core | none | LOG.md, n = 1 |

`DIR` is what `skipless data scenes --layout imagenet --train 8000 --val 1000 --size 64 --at-most 1 --smallest 0.8
--largest 1.0 --colours class` writes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from skipless.data import ImageConfig, ImageData, load_images
from skipless.data.multicrop import MultiCropConfig, load_multicrop
from skipless.data.shards import find_shards
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.optim import OptimizerConfig, WarmupCosine, build_optimizer
from skipless.recipes.conditioning import training_measure
from skipless.recipes.recipe import ModelConfig, ScheduleConfig
from skipless.recipes.table1 import OptimizerName, Row
from skipless.recipes.teacher_knn import NeighboursConfig, teacher_neighbours
from skipless.recipes.teacher_snapshots import keep_teachers
from skipless.tasks import DINO, DINO_VIT_SMALL, DINOConfig
from skipless.training import FitConfig, FitResult, fit

DinoScale = Literal["vit_small", "scenes"]

# That of `recipes.scenes`, for the same width; the paper's values are for width 384.
SCENES_INIT = SkiplessInit(alpha=0.5, beta=1.5, c=3.0)


@dataclass(frozen=True)
class DinoRecipe:
    """One pretraining: backbone, images, crops, self-distillation, optimizer, schedule and length.

    Attributes:
        name: of the experiment, `dino`.
        scale: at which size.
        model: the backbone; it takes images of any size and has no classifier.
        data: a folder of images (labels serve evaluation alone) and the size that they are evaluated at.
        crops: how they are augmented.
        task: the self-distillation.
        optimizer: with which optimizer, at which peak learning rate; its decay is where the task's starts.
        schedule: of the learning rate.
        fit: how long, and with which seed.
        neighbours: the evaluation on the way.
        keep_every: epochs between teachers that are kept as files, for evaluations afterwards; the last is kept, too.
            A multiple of `fit.evaluate_every`; 0 keeps none.
        metric: which number of the evaluation runs are compared by.

    Raises:
        InputError: if two parts contradict each other.
    """

    name: str
    scale: str
    model: ModelConfig
    data: ImageConfig
    crops: MultiCropConfig
    task: DINOConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    fit: FitConfig
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    keep_every: int = 0
    metric: ClassVar[str] = "knn_best"

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
        between = self.fit.evaluate_every
        if self.keep_every < 0 or (self.keep_every and (not between or self.keep_every % between)):
            raise InputError(
                f"keep_every {self.keep_every}: teachers are kept as they are evaluated, fit.evaluate_every {between}; "
                "give a multiple of that, or 0"
            )

    def with_(self, **changes: Any) -> "DinoRecipe":
        """A copy in which fields are changed by their dotted name, `optimizer__lr=1e-3`; None changes nothing.

        Example:
            >>> dino("scenes", data="scenes/").with_(fit__epochs=2).fit.epochs
            2
        """
        parts: dict[str, Any] = {}
        for path, value in changes.items():
            if value is not None:
                part, _, name = path.partition("__")
                parts[part] = replace(parts.get(part, getattr(self, part)), **{name: value}) if name else value
        return replace(self, **parts)

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain JSON; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DinoRecipe":
        """The recipe that a `run.json` holds.

        Raises:
            InputError: if it was written by a version with other fields.
        """
        try:
            model = dict(values["model"])
            model["init"] = SkiplessInit(**model["init"]) if model["init"] else None
            return cls(
                name=values["name"],
                scale=values["scale"],
                model=ModelConfig(**model),
                data=ImageConfig(**values["data"]),
                crops=MultiCropConfig(**_tuples(values["crops"])),
                task=DINOConfig(**values["task"]),
                optimizer=OptimizerConfig(**_tuples(values["optimizer"])),
                schedule=ScheduleConfig(**values["schedule"]),
                fit=FitConfig(**values["fit"]),
                neighbours=NeighboursConfig(**values["neighbours"]),
                keep_every=values.get("keep_every", 0),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"this run's recipe cannot be read ({error}): made by another version?") from error

    def run(self, out: Path) -> FitResult:
        """Pretrain in the folder `out`; go on where an earlier run stopped, recognise a finished one.

        The teacher is evaluated where the folder of images has labels: `train/CLASS/` and `val/CLASS/`.

        Raises:
            InputError: whatever of the recipe, the data or the folder cannot be used.
        """
        crops = load_multicrop(self.data.data, self.crops, corrupt_limit=self.data.corrupt_limit)
        total = self.fit.total_steps(len(crops))
        task = self.build_task(total, total // self.fit.epochs)
        warmup = round(self.schedule.warmup * total)
        labelled = _labelled(self.data)
        if labelled is None and self.fit.measure_every:
            raise InputError(f"measure_every needs validation images in {str(Path(self.data.data) / 'val')!r}")
        evaluate = None if labelled is None else teacher_neighbours(labelled, self.neighbours)
        if self.keep_every:
            evaluate = keep_teachers(task, out, self.keep_every, self.fit.epochs, evaluate)
        return fit(
            task,
            crops,
            build_optimizer(task, self.optimizer, scaled=self.fit.precision == "fp16"),
            WarmupCosine(self.optimizer.lr, total, warmup_steps=warmup, final=self.schedule.final_lr),
            out=out,
            config=self.fit,
            evaluate=evaluate,
            measure=training_measure(labelled) if labelled is not None and self.fit.measure_every else None,
            recipe=self.as_json(),
        )

    def build_task(self, total_steps: int, steps_per_epoch: int) -> DINO:
        """The student and its teacher before the first step, a function of the seed."""
        return DINO(
            self.backbone(), self.task, total_steps=total_steps, steps_per_epoch=steps_per_epoch, seed=self.fit.seed
        )

    def backbone(self) -> nn.Module:
        """The backbone before the first step."""
        return self.model.build_for(self.data.image_size or 224, 3, 0, self.fit.seed)


def dino(
    scale: DinoScale = "vit_small",
    row: Row = "skipless + init",
    optimizer: OptimizerName | None = None,
    *,
    depth: int | None = None,
    seed: int = 0,
    data: str | None = None,
) -> DinoRecipe:
    """One of the pretrainings behind section 6.2.

    Args:
        scale: `vit_small` (the paper's: ViT-S/16, ImageNet-1k, 300 epochs) or `scenes` (generated scenes, minutes).
        row: with skips, without, or without and initialised.
        optimizer: `adamw` (the paper's, and the default at its scale) or `soap` (the default at scale `scenes`).
        depth: number of blocks; 12 (the paper's Table 4 has 9 to 12), and 6 at scale `scenes`.
        seed: of weights, head, order and augmentation.
        data: the folder of images.

    Raises:
        InputError: for a scale that does not exist, or without a folder.

    Example:
        >>> recipe = dino("vit_small", "skip", data="imagenet/")
        >>> recipe.optimizer.lr, recipe.task.teacher_temp, recipe.model.kwargs["depth"]
        (0.002, 0.07, 12)
    """
    scales = {"vit_small": _vit_small, "scenes": _scenes}
    if scale not in scales:
        raise InputError(f"no dino run at scale {scale!r}; scales are {', '.join(scales)}")
    if data is None:
        what = "ImageNet-1k" if scale == "vit_small" else "`skipless data scenes --layout imagenet --out DIR`"
        raise InputError(f"dino at scale {scale!r} needs a folder of images: give --data ({what})")
    base = scales[scale](seed, data)
    init = SkiplessInit.preset("dino_vit_small") if scale == "vit_small" else SCENES_INIT
    kwargs = {**base.model.kwargs, **({} if depth is None else {"depth": depth})}
    model = replace(base.model, skip=row == "skip", init=init if row == "skipless + init" else None, kwargs=kwargs)
    return base.with_(model=model, optimizer__name=optimizer, optimizer__lr=_rate(scale, optimizer))


def _rate(scale: DinoScale, optimizer: OptimizerName | None) -> float | None:
    """AdamW's peak learning rate at scale `scenes`, where the recipe's is SOAP's; None is the recipe's."""
    return 5e-4 if scale == "scenes" and optimizer == "adamw" else None


def _vit_small(seed: int, data: str) -> DinoRecipe:
    """ViT-S/16 on ImageNet-1k by the published run nearest to the paper's; SOAP's learning rate is stated nowhere."""
    batch_size, epochs = 1024, 300
    return DinoRecipe(
        name="dino",
        scale="vit_small",
        model=ModelConfig("vit_small_patch16_224", kwargs={"depth": 12, "dynamic_img_size": True}),
        data=ImageConfig(data, image_size=224),
        crops=MultiCropConfig(),
        task=DINO_VIT_SMALL,
        # The published code lets position embeddings and the class token decay.
        optimizer=OptimizerConfig(lr=5e-4 * batch_size / 256, weight_decay=DINO_VIT_SMALL.weight_decay, no_decay=()),
        schedule=ScheduleConfig(warmup=10 / epochs, final_lr=1e-6),
        fit=FitConfig(epochs=epochs, batch_size=batch_size, seed=seed, precision="bf16", evaluate_every=10),
        keep_every=20,
    )


def _scenes(seed: int, data: str) -> DinoRecipe:
    """6 blocks of width 64 on scenes of 64 pixels, patches of 8: crops of 48 and 24 pixels, by SOAP.

    What a few minutes ask for (LOG.md): a teacher sharper than the published one, and crops that show most of the
    object and leave it its hue.
    """
    task = DINOConfig(
        out_dim=256, hidden_dim=256, bottleneck_dim=64, momentum=0.99, teacher_temp=0.03, warmup_teacher_temp=0.03,
        final_weight_decay=0.04, watch_every=50, watch_after=2,
    )  # fmt: skip
    crops = MultiCropConfig(
        global_size=48, local_size=24, local_crops=4, global_scale=(0.6, 1.0), local_scale=(0.15, 0.5),
        jitter=(0.4, 0.4, 0.2, 0.02), grey=0.05, blur=(0.3, 0.03, 0.15), solarise=0.0, mode="fast",
    )  # fmt: skip
    sizes = {"patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 2, "dynamic_img_size": True}
    return DinoRecipe(
        name="dino",
        scale="scenes",
        model=ModelConfig("vit_tiny_patch16_224", kwargs=sizes),
        data=ImageConfig(data, image_size=64, crop_ratio=1.0),
        crops=crops,
        task=task,
        optimizer=OptimizerConfig(name="soap", lr=2e-3, weight_decay=task.weight_decay, no_decay=()),
        schedule=ScheduleConfig(warmup=0.1),
        fit=FitConfig(epochs=8, batch_size=64, seed=seed),
        neighbours=NeighboursConfig(train=2000, val=1000),
        keep_every=1,
    )


def _labelled(config: ImageConfig) -> ImageData | None:
    """The images with their labels, not augmented; None where the folder has no validation images."""
    shards = find_shards(config.data)
    held = shards.split("val").files if shards else (Path(config.data).expanduser() / "val").is_dir()
    if not held:
        return None
    return load_images(replace(config, augmentation="none"))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists for tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
