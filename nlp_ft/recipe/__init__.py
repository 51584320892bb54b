"""Recipes: reading what a person writes, completing it from presets and defaults, checking it. Imports no torch."""

from nlp_ft.recipe.recipe import Recipe
from nlp_ft.recipe.task_recipes import (
    RECIPES,
    ChoiceRecipe,
    ImageRecipe,
    MultiLabelRecipe,
    QuestionRecipe,
    RegressionRecipe,
    TextRecipe,
    WordsRecipe,
)

__all__ = [
    "RECIPES",
    "ChoiceRecipe",
    "ImageRecipe",
    "MultiLabelRecipe",
    "QuestionRecipe",
    "Recipe",
    "RegressionRecipe",
    "TextRecipe",
    "WordsRecipe",
]
