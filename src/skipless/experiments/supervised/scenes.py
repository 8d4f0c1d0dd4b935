"""A small ViT trained on generated scenes: meant for trying the dense evaluators where no download can be had.

Command: `skipless train scenes --data DIR`, a folder of `skipless data scenes --layout imagenet --train 30000 --val
1000 --size 64 --at-most 1 --smallest 0.45 --largest 0.75`. 27 minutes of a loaded CPU core. The paper: nothing. Ours:
with skips 59.6 % (n = 1, LOG.md); without them not run.
"""

from typing import Annotated

from skipless.choices import OptimizerName, Row
from skipless.data.config import ImageConfig
from skipless.errors import InputError
from skipless.init.scheme import SkiplessInit
from skipless.optim.config import OptimizerConfig
from skipless.options import Option
from skipless.recipes.model import ModelConfig
from skipless.recipes.our_init import with_our_init
from skipless.recipes.recipe import ScheduleConfig
from skipless.recipes.supervised import SupervisedRecipe
from skipless.tasks.targets import SupervisedConfig
from skipless.training.config import FitConfig

# Attention diagonals of 0.9 and more at this width, as `skipless init` prints them.
INIT = SkiplessInit(alpha=0.5, beta=1.5, c=3.0)
# Tried by hand, not tuned (LOG.md); Muon's is AdamW's, untried.
LEARNING_RATES = {"adamw": 1e-3, "soap": 3e-3, "muon": 1e-3}
_OURS = {**LEARNING_RATES, "soap": 6e-3}  # Table 1's at scale digits; not tried here


def scenes(
    row: Row = "skipless + init",
    optimizer: OptimizerName = "soap",
    *,
    seed: int = 0,
    data: Annotated[str | None, Option("required")] = None,
) -> SupervisedRecipe:
    """Name the class of a scene's largest object: 6 blocks of width 64, 65 tokens of 8 x 8 pixels.

    Args:
        row: with skips, without, or without and initialised by the paper's scheme or ours.
        optimizer: `adamw`, `soap` or `muon`.
        seed: of weights, order and augmentation.
        data: a folder of scenes, as `skipless data scenes --layout imagenet` writes it.

    Raises:
        InputError: without a folder.

    Example:
        >>> scenes("skip", data="scenes/").model.skip
        True
    """
    if data is None:
        raise InputError("scenes needs --data; `skipless data scenes --layout imagenet --out DIR` writes a folder")
    ours = row == "skipless + ours"
    sizes = {"patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 2}
    made = SupervisedRecipe(
        name="scenes",
        scale="scenes",
        model=ModelConfig("vit_tiny_patch16_224", row == "skip", INIT if row == "skipless + init" else None, sizes),
        data=ImageConfig(data, image_size=64, augmentation="none", crop_ratio=1.0),
        targets=SupervisedConfig(),
        optimizer=OptimizerConfig(name=optimizer, lr=(_OURS if ours else LEARNING_RATES)[optimizer], weight_decay=0.05),
        schedule=ScheduleConfig(warmup=0.1),
        fit=FitConfig(epochs=5, batch_size=64, seed=seed),
    )
    return with_our_init(made) if ours else made
