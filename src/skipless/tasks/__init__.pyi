# Self-distillation
from skipless.tasks.dino.config import DINO_VIT_SMALL as DINO_VIT_SMALL, DINOConfig as DINOConfig
from skipless.tasks.dino.head import DINOHead as DINOHead
from skipless.tasks.dino.loss import DINOLoss as DINOLoss
from skipless.tasks.dino.task import DINO as DINO

# Language
from skipless.tasks.language import LanguageModel as LanguageModel
from skipless.tasks.language_config import LanguageConfig as LanguageConfig

# Classification
from skipless.tasks.supervised import Supervised as Supervised
from skipless.tasks.targets import IMAGENET_TARGETS as IMAGENET_TARGETS, SupervisedConfig as SupervisedConfig
