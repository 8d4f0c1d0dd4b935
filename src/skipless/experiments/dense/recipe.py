"""DINO with and without skips: what Tables 2 to 4 and Figures 2 to 9 pretrain (section 6.2, A.2, A.6).

| scale | command | hardware, time | the paper | ours |
|---|---|---|---|---|
| vit_small | `skipless train dino --data IMAGENET` | not stated | Table 2 | not run |
| scenes | `skipless train dino --scale scenes --data DIR` | 12 to 15 minutes of a CPU core | none | LOG.md, n = 1 |

`DIR` is what `skipless data scenes --layout imagenet --train 8000 --val 1000 --size 64 --at-most 1 --smallest 0.8
--largest 1.0 --colours class` writes.
"""

from dataclasses import replace
from typing import Annotated, Literal

from skipless.choices import OptimizerName, Row
from skipless.data.config import ImageConfig
from skipless.data.multicrop.config import MultiCropConfig
from skipless.errors import InputError, did_you_mean
from skipless.init.scheme import SkiplessInit
from skipless.optim.config import OptimizerConfig
from skipless.options import Option
from skipless.recipes.model import ModelConfig
from skipless.recipes.neighbours_config import NeighboursConfig
from skipless.recipes.our_init import with_our_init
from skipless.recipes.recipe import ScheduleConfig
from skipless.recipes.self_supervised import DinoRecipe
from skipless.tasks.dino.config import DINO_VIT_SMALL, DINOConfig
from skipless.training.config import FitConfig

DinoScale = Literal["vit_small", "scenes"]

# Attention diagonals of 0.9 and more at width 64; the paper's values are for width 384.
SCENES_INIT = SkiplessInit(alpha=0.5, beta=1.5, c=3.0)


def dino(
    scale: DinoScale = "vit_small",
    row: Row = "skipless + init",
    optimizer: Annotated[OptimizerName | None, Option("adamw, and soap at scenes")] = None,
    *,
    depth: Annotated[int | None, Option("12, and 6 at scenes")] = None,
    seed: int = 0,
    data: Annotated[str | None, Option("required")] = None,
) -> DinoRecipe:
    """One of the pretrainings behind section 6.2.

    Args:
        scale: `vit_small` (the paper's: ViT-S/16, ImageNet-1k, 300 epochs) or `scenes` (generated scenes, minutes).
        row: with skips, without, without and initialised as the paper says, or as we do.
        optimizer: `adamw` (the paper's, and the default at its scale), `soap` (the default at scale `scenes`) or `muon`
            (at AdamW's rate, which is not tuned for it).
        depth: number of blocks; 12 (the paper's Table 4 has 9 to 12), and 6 at scale `scenes`.
        seed: of weights, head, order, augmentation and masks.
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
        raise InputError(f"no dino run at scale {scale!r}; {did_you_mean(scale, scales)}scales are {', '.join(scales)}")
    if data is None:
        what = "ImageNet-1k" if scale == "vit_small" else "`skipless data scenes --layout imagenet --out DIR`"
        raise InputError(f"dino at scale {scale!r} needs a folder of images: give --data ({what})")
    base = scales[scale](seed, data)
    init = SkiplessInit.preset("dino_vit_small") if scale == "vit_small" else SCENES_INIT
    kwargs = {**base.model.kwargs, **({} if depth is None else {"depth": depth})}
    model = replace(base.model, skip=row == "skip", init=init if row == "skipless + init" else None, kwargs=kwargs)
    made = base.with_(model=model, optimizer__name=optimizer, optimizer__lr=_rate(scale, optimizer))
    return _with_our_init(made) if row == "skipless + ours" else made


def _with_our_init(recipe: DinoRecipe) -> DinoRecipe:
    """Our initialisation without its positions, and with DINO's schedule of decay.

    Crops are views of one image at other places, which strong positions tell apart where they should not; and random
    rows mean nothing between the places that they were drawn for, where crops are resized (docs/depth.md).
    """
    return with_our_init(recipe, weight_decay=None).with_(model__init__positions="kept")


def _rate(scale: DinoScale, optimizer: OptimizerName | None) -> float | None:
    """AdamW's peak learning rate at scale `scenes`, where the recipe's is SOAP's, and Muon's; None is the recipe's."""
    return 5e-4 if scale == "scenes" and optimizer in ("adamw", "muon") else None


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
