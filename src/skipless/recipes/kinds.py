"""All kinds of recipe: who imports `Recipe` from here can make and read each of them."""

from skipless.recipes.language import LanguageRecipe
from skipless.recipes.recipe import Recipe
from skipless.recipes.self_supervised import DinoRecipe
from skipless.recipes.supervised import SupervisedRecipe

__all__ = ["DinoRecipe", "LanguageRecipe", "Recipe", "SupervisedRecipe"]
