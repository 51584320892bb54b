"""From a YAML file and `key=value` overrides to a `Recipe`, or to one error that lists every problem."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nlp_ft.errors import RecipeError, printable
from nlp_ft.recipe import RECIPES, ImageRecipe, Recipe, TextRecipe
from nlp_ft.recipe.presets import STRATEGY_PRESETS, TASK_PRESETS, laid_over
from nlp_ft.recipe.problems import problems_of, shown
from nlp_ft.recipe.yaml_reader import DEEPEST, parse_yaml
from nlp_ft.recipe.yaml_reader import dump_yaml as dump_yaml
from nlp_ft.recipe.yaml_reader import read_yaml as read_yaml

MOST_PROBLEMS = 50
"""That are told at once."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: `key=value` with the key dotted, as in `optimizer.lr=1e-4`; the value is read as YAML.

    Raises:
        RecipeError: one line a problem, each with the field, what it holds and what was expected.
    """
    return recipe_from_dict(apply_overrides(read_yaml(path), overrides), str(path))


def recipe_from_dict(values: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Validate a recipe given as nested dicts; `origin` begins each line of an error. Raises: RecipeError."""
    recipe = _recipe_class(values)
    try:
        return recipe.model_validate(_with_preset(values))
    except ValidationError as error:
        problems = problems_of(error, recipe)
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        lines = [f"{printable(origin)}: {problem}" for problem in problems[:MOST_PROBLEMS] + more]
        raise RecipeError("\n".join(lines)) from None


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain dicts; `recipe_from_dict` gives the same recipe back."""
    return recipe.model_dump(mode="json")


def json_schema() -> str:
    """The JSON Schema of a recipe, for editors: the task decides what `data` and `model` hold."""
    text, image = TextRecipe.model_json_schema(), ImageRecipe.model_json_schema()
    schema: dict[str, Any] = {**text, "$defs": {**text["$defs"], **image["$defs"]}}
    schema["title"], schema["description"] = "Recipe", "A fine-tuning run, from data to run folder."
    properties, of_images = schema["properties"], image["properties"]
    then = {key: of_images[key] for key in properties if of_images[key] != properties[key]}
    otherwise = {key: properties[key] for key in then}
    for key in then:
        properties[key] = {"description": Recipe.model_fields[key].description}
    is_image = {"properties": {"task": {"const": "image_classification"}}, "required": ["task"]}
    schema["if"], schema["then"], schema["else"] = is_image, {"properties": then}, {"properties": otherwise}
    strategy = properties["strategy"]
    properties["strategy"] = {
        "description": strategy.pop("description"),
        "anyOf": [{"enum": list(STRATEGY_PRESETS)}, {"$ref": "#/$defs/StrategySection"}],
        "default": "llrd",
    }
    return json.dumps(schema, indent=2) + "\n"


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested dicts with `a.b=value` set. Raises: RecipeError."""
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.split(".")
        if not equals or not all(parts) or len(parts) > DEEPEST:
            raise RecipeError(f"{shown(override)} must have the form key=value, such as optimizer.lr=1e-4")
        target = result
        for place, parent in enumerate(parts[:-1], start=1):
            inner = target.get(parent)
            if parent == "strategy" and isinstance(inner, str):
                inner = {"name": inner}
            if not isinstance(inner, dict | None):
                above = printable(".".join(parts[:place]))
                raise RecipeError(f"{shown(override)} cannot be set: {above} is no section, but {shown(inner)}")
            target[parent] = inner or {}
            target = target[parent]
        target[parts[-1]] = parse_yaml(text, override)
    return result


def _recipe_class(values: Mapping[str, Any]) -> type[Recipe]:
    """That of the task; of the nearest where the task is misspelt, so that only the task is wrong."""
    near = get_close_matches(str(values.get("task"))[:100], RECIPES, n=1, cutoff=0.3)
    return RECIPES[near[0]] if near else TextRecipe


def _with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe laid over the presets of its task and its strategy."""
    result = dict(values)
    for section, preset in _named(TASK_PRESETS, result.get("task")).items():
        result[section] = _laid(preset, result.get(section))
    strategy = result.get("strategy", "llrd")
    result["strategy"] = {"name": strategy} if isinstance(strategy, str) else strategy
    name = result["strategy"].get("name") if isinstance(result["strategy"], dict) else None
    for section, preset in _named(STRATEGY_PRESETS, name).items():
        result[section] = _laid(preset, result.get(section))
    return {key: value for key, value in result.items() if value is not None}


def _named(presets: Mapping[str, dict[str, dict[str, Any]]], name: Any) -> dict[str, dict[str, Any]]:
    return presets.get(name, {}) if isinstance(name, str) else {}


def _laid(preset: Mapping[str, Any], given: Any) -> Any:
    given = {} if given is None else given
    return laid_over(preset, given) if isinstance(given, dict) else given
