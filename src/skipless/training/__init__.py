"""Training: one loop, its checkpoints and its run folder."""

from skipless.training.checkpoint import load_weights, save_weights, weight_shapes
from skipless.training.config import FitConfig
from skipless.training.interruption import TrainingStopped
from skipless.training.loop import FitResult, TrainingDiverged, fit

__all__ = [
    "FitConfig",
    "FitResult",
    "TrainingDiverged",
    "TrainingStopped",
    "fit",
    "load_weights",
    "save_weights",
    "weight_shapes",
]
