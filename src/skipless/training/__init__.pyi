from skipless.training.config import FitConfig as FitConfig
from skipless.training.loop.fit import fit as fit
from skipless.training.loop.result import FitResult as FitResult, TrainingDiverged as TrainingDiverged
from skipless.training.loop.signals import TrainingStopped as TrainingStopped
from skipless.training.run_folder.checkpoint import (
    load_weights as load_weights,
    save_weights as save_weights,
    weight_shapes as weight_shapes,
)
