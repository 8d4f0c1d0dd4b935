"""Recipes: one file per experiment, a function that returns a `Recipe`; `run` trains it."""

from skipless.recipes.dino import DinoRecipe, dino
from skipless.recipes.exported import Exported, export_backbone, open_file
from skipless.recipes.read import read_any_recipe
from skipless.recipes.recipe import (
    ModelConfig,
    Recipe,
    ScheduleConfig,
    evaluate_top1,
    read_recipe,
    recorded_classes,
    run,
)
from skipless.recipes.scenes import scenes
from skipless.recipes.source import ModelSource, open_model
from skipless.recipes.table1 import table1

__all__ = [
    "DinoRecipe",
    "Exported",
    "ModelConfig",
    "ModelSource",
    "Recipe",
    "ScheduleConfig",
    "dino",
    "evaluate_top1",
    "export_backbone",
    "open_file",
    "open_model",
    "read_any_recipe",
    "read_recipe",
    "recorded_classes",
    "run",
    "scenes",
    "table1",
]
