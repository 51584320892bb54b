"""From a YAML file and `key=value` overrides to a `Recipe`, or to one error that lists every problem."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nlp_ft.errors import RecipeError, printable
from nlp_ft.recipe import RECIPES, Recipe, TextRecipe
from nlp_ft.recipe.json_schema import json_schema as json_schema
from nlp_ft.recipe.problems import problems_of
from nlp_ft.recipe.resolve import Layer, settings_layers, values_of
from nlp_ft.recipe.resolve import apply_overrides as apply_overrides
from nlp_ft.recipe.yaml_reader import dump_yaml as dump_yaml
from nlp_ft.recipe.yaml_reader import read_yaml as read_yaml
from nlp_ft.suggest import nearest

MOST_PROBLEMS = 50
"""Problems of a recipe that one error lists."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: `key=value` with a dotted key, as in `optimizer.lr=1e-4`; the value is read as YAML.

    Raises:
        RecipeError: one line for each problem, with the field, its value and what was expected.
    """
    return load_recipe_with_layers(path, overrides)[0]


def load_recipe_with_layers(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[Layer]]:
    """Read a recipe, and the layers of settings that it was made of; see `load_recipe`. Raises: RecipeError."""
    layers = settings_layers(read_yaml(path), overrides)
    return recipe_from_layers(layers, str(path)), layers


def recipe_from_dict(values: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Validate a recipe given as nested dicts; `origin` begins each line of an error. Raises: RecipeError."""
    return recipe_from_layers(settings_layers(values), origin)


def recipe_from_layers(layers: Sequence[Layer], origin: str = "recipe") -> Recipe:
    """Validate the settings of all layers together; `origin` begins each line of an error. Raises: RecipeError."""
    values = values_of(layers)
    recipe = _recipe_class(values.get("task"))
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        problems = problems_of(error, recipe)
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        lines = [f"{printable(origin)}: {problem}" for problem in problems[:MOST_PROBLEMS] + more]
        raise RecipeError("\n".join(lines)) from None


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain dicts; `recipe_from_dict` gives the same recipe back."""
    return recipe.model_dump(mode="json")


def _recipe_class(task: Any) -> type[Recipe]:
    """The recipe class of a task; for a misspelt task that of the nearest name, so that only the task is an error."""
    near = nearest(task, RECIPES, cutoff=0.3)
    return RECIPES[near] if near else TextRecipe
