from skipless.tasks.dino.checkpoint import read_dino_checkpoint as read_dino_checkpoint
from skipless.tasks.dino.config import (
    DINO_VIT_SMALL as DINO_VIT_SMALL,
    DINOConfig as DINOConfig,
    DINOSchedules as DINOSchedules,
)
from skipless.tasks.dino.head import DINOHead as DINOHead
from skipless.tasks.dino.loss import DINOLoss as DINOLoss
from skipless.tasks.dino.patch_loss import PatchLoss as PatchLoss
from skipless.tasks.dino.task import DINO as DINO
