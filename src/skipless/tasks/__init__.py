"""Tasks: what is optimised. A task is a module: `forward` takes a batch and returns named scalars, `loss` too."""

from skipless.tasks.dino import DINO
from skipless.tasks.dino_config import DINO_VIT_SMALL, DINOConfig
from skipless.tasks.dino_head import DINOHead
from skipless.tasks.dino_loss import DINOLoss
from skipless.tasks.supervised import IMAGENET_TARGETS, Supervised, SupervisedConfig

__all__ = [
    "DINO",
    "DINO_VIT_SMALL",
    "IMAGENET_TARGETS",
    "DINOConfig",
    "DINOHead",
    "DINOLoss",
    "Supervised",
    "SupervisedConfig",
]
