# The recipes of experiments, under their names
from skipless.experiments.dense.recipe import dino as dino
from skipless.experiments.supervised.recipe import table1 as table1
from skipless.experiments.supervised.scenes import scenes as scenes

# Backbones as files
from skipless.recipes.export import Exported as Exported
from skipless.recipes.export import export_backbone as export_backbone
from skipless.recipes.export import open_file as open_file

# What a run is
from skipless.recipes.model import ModelConfig as ModelConfig
from skipless.recipes.read import read_recipe as read_recipe
from skipless.recipes.recipe import Recipe as Recipe
from skipless.recipes.recipe import ScheduleConfig as ScheduleConfig
from skipless.recipes.self_supervised import DinoRecipe as DinoRecipe
from skipless.recipes.source import ModelSource as ModelSource
from skipless.recipes.source import open_model as open_model
from skipless.recipes.supervised import (
    SupervisedRecipe as SupervisedRecipe,
)
from skipless.recipes.supervised import (
    evaluate_top1 as evaluate_top1,
)
from skipless.recipes.supervised import (
    recorded_classes as recorded_classes,
)
from skipless.recipes.supervised import (
    run as run,
)
