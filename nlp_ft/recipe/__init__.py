"""A recipe: what a person writes, read, checked and laid over presets. Imports no torch."""

from nlp_ft.recipe.recipe import RECIPES, ImageRecipe, Recipe, RegressionRecipe, TextRecipe

__all__ = ["RECIPES", "ImageRecipe", "Recipe", "RegressionRecipe", "TextRecipe"]
