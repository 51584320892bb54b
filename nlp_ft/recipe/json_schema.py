"""The JSON Schema of recipes, with which editors complete and check them."""

import json
from typing import Any

from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.recipe.recipe import RECIPES, Recipe, TextRecipe
from nlp_ft.recipe.strategy import StrategySection


def json_schema() -> str:
    """The JSON Schema of a recipe as text: `task` decides which keys `data` and `model` have."""
    schema: dict[str, Any] = TextRecipe.model_json_schema()
    schema["title"], schema["description"] = "Recipe", "A fine-tuning run, from data to run folder."
    properties = schema["properties"]
    others: dict[str, dict[str, Any]] = {}
    for task, recipe in RECIPES.items():
        of_task = recipe.model_json_schema()
        schema["$defs"] |= of_task["$defs"]
        differing = {
            key: of_task["properties"][key] for key in properties if of_task["properties"][key] != properties[key]
        }
        if differing:
            others[task] = differing
    shared = {key: properties[key] for differing in others.values() for key in differing}
    branch: dict[str, Any] = {"properties": shared}
    for task, differing in others.items():
        is_task = {"properties": {"task": {"const": task}}, "required": ["task"]}
        branch = {"if": is_task, "then": {"properties": {**shared, **differing}}, "else": branch}
    schema |= branch
    for key in shared:
        properties[key] = {"description": Recipe.model_fields[key].description}
    properties["strategy"] = {
        "description": properties["strategy"]["description"],
        "anyOf": [{"enum": list(STRATEGY_PRESETS)}, {"$ref": "#/$defs/StrategySection"}],
        "default": StrategySection.model_fields["name"].default,
    }
    return json.dumps(schema, indent=2) + "\n"
