# The recipes of experiments, under their names
from skipless.experiments.dense.recipe import dino as dino
from skipless.experiments.supervised.recipe import table1 as table1
from skipless.experiments.supervised.scenes import scenes as scenes

# Backbones as files
from skipless.recipes.export import Exported as Exported, export_backbone as export_backbone, open_file as open_file

# What a run is
from skipless.recipes.kinds import (
    DinoRecipe as DinoRecipe,
    LanguageRecipe as LanguageRecipe,
    Recipe as Recipe,
    SupervisedRecipe as SupervisedRecipe,
)
from skipless.recipes.model import ModelConfig as ModelConfig
from skipless.recipes.read import read_any_recipe as read_any_recipe, read_recipe as read_recipe
from skipless.recipes.recipe import ScheduleConfig as ScheduleConfig, run as run
from skipless.recipes.source import ModelSource as ModelSource, open_model as open_model
from skipless.recipes.supervised import (
    evaluate_top1 as evaluate_top1,
    recorded_classes as recorded_classes,
)
