"""DINO runs of a second: crops of digits as a pure function of (seed, epoch, index), and a ViT of two blocks."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from skipless.data.builtin import load_digits
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed
from skipless.models import remove_skips_
from skipless.optim import OptimizerConfig, WarmupCosine, build_optimizer
from skipless.tasks import DINO, DINOConfig
from skipless.training import FitConfig, FitResult, fit

SAMPLES, BATCH, EPOCHS = 64, 16, 3
PER_EPOCH = SAMPLES // BATCH
STEPS = EPOCHS * PER_EPOCH
CONFIG = FitConfig(
    epochs=EPOCHS, batch_size=BATCH, checkpoint_every=5, log_every=3, workers=0, device="cpu", progress="none"
)
SETTINGS = {
    "out_dim": 32, "hidden_dim": 24, "bottleneck_dim": 8, "teacher_temp": 0.07, "warmup_teacher_temp_epochs": 2,
    "momentum": 0.9, "watch_every": 4,
}  # fmt: skip


class Crops:
    """Two crops of 8 x 8 and two of 4 x 4 of each digit."""

    def __init__(self) -> None:
        self.images = load_digits()[0].images[:SAMPLES].float() / 16

    def __len__(self) -> int:
        return SAMPLES

    def __getitems__(self, key: BatchKey) -> tuple[list[Tensor]]:
        samples = [self._crops(key, int(index)) for index in key.indices]
        return ([torch.stack(crops) for crops in zip(*samples, strict=True)],)

    def _crops(self, key: BatchKey, index: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(key.seed, "crop", key.epoch, index))
        image, crops = self.images[index], []
        for size in (8, 8, 4, 4):
            y, x = torch.randint(0, 4, (2,), generator=generator).tolist()
            crops.append(F.interpolate(image[None, :, y : y + 5, x : x + 5], size=size, mode="bilinear")[0])
        return crops


def tiny_dino(skip: bool = True, **changes: Any) -> DINO:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=0, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True
    )
    backbone = model if skip else remove_skips_(model)
    return DINO(backbone, DINOConfig(**SETTINGS | changes), total_steps=STEPS, steps_per_epoch=PER_EPOCH)


def train_dino(out: Path, optimizer: str = "adamw", task: DINO | None = None, **changes: Any) -> FitResult:
    task = task or tiny_dino()
    config = OptimizerConfig(name=optimizer, weight_decay=0.04, no_decay=(), precondition_frequency=3)
    schedule = changes.pop("schedule", WarmupCosine(2e-3, STEPS, warmup_steps=4))
    config_of_fit = FitConfig(**vars(CONFIG) | changes)
    return fit(task, Crops(), build_optimizer(task, config), schedule, out=out, config=config_of_fit)
