# Classification
# Self-distillation
from skipless.tasks.dino.config import DINO_VIT_SMALL as DINO_VIT_SMALL, DINOConfig as DINOConfig
from skipless.tasks.dino.head import DINOHead as DINOHead
from skipless.tasks.dino.loss import DINOLoss as DINOLoss
from skipless.tasks.dino.task import DINO as DINO
from skipless.tasks.supervised import Supervised as Supervised
from skipless.tasks.targets import IMAGENET_TARGETS as IMAGENET_TARGETS, SupervisedConfig as SupervisedConfig
