"""The JSON Schema of recipes, with which editors complete and check them."""

import json
from typing import Any

from nlp_ft.recipe import RECIPES, Recipe, TextRecipe
from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.recipe.strategy import StrategySection


def json_schema() -> str:
    """The JSON Schema of a recipe as text: `task` decides which keys `data` and `model` have."""
    of_tasks = {task: recipe.model_json_schema() for task, recipe in RECIPES.items()}
    schema: dict[str, Any] = dict(TextRecipe.model_json_schema())
    schema["$defs"] = {name: found for of_task in of_tasks.values() for name, found in of_task["$defs"].items()}
    schema["title"], schema["description"] = "Recipe", "A fine-tuning run, from data to run folder."
    properties = schema["properties"]
    differing = [
        key for key in properties if any(of_task["properties"][key] != properties[key] for of_task in of_tasks.values())
    ]
    # Tasks with the same keys share a branch; that of texts is the last, since a recipe need not name its task.
    of_texts = {key: properties[key] for key in differing}
    branch: dict[str, Any] = {"properties": of_texts}
    branches: dict[str, list[str]] = {}
    for task, of_task in of_tasks.items():
        branches.setdefault(json.dumps({key: of_task["properties"][key] for key in differing}), []).append(task)
    for parts, tasks in branches.items():
        if json.loads(parts) != of_texts:
            is_task = {"properties": {"task": {"enum": tasks}}, "required": ["task"]}
            branch = {"if": is_task, "then": {"properties": json.loads(parts)}, "else": branch}
    for key in differing:
        properties[key] = {"description": Recipe.model_fields[key].description}
    properties["strategy"] = {
        "description": properties["strategy"]["description"],
        "anyOf": [{"enum": list(STRATEGY_PRESETS)}, {"$ref": "#/$defs/StrategySection"}],
        "default": StrategySection.model_fields["name"].default,
    }
    return json.dumps({**schema, **branch}, indent=2) + "\n"
