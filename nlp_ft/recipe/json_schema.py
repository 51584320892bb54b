"""The JSON Schema of recipes, with which editors complete and check them."""

import json
from typing import Any

from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.recipe.recipe import RECIPES, ImageRecipe, Recipe, TextRecipe
from nlp_ft.recipe.strategy import StrategySection


def json_schema() -> str:
    """The JSON Schema of a recipe as text: `task` decides which keys `data` and `model` have."""
    text, image = TextRecipe.model_json_schema(), ImageRecipe.model_json_schema()
    schema: dict[str, Any] = {**text, "$defs": {**text["$defs"], **image["$defs"]}}
    schema["title"], schema["description"] = "Recipe", "A fine-tuning run, from data to run folder."
    properties, of_images = schema["properties"], image["properties"]
    then = {key: of_images[key] for key in properties if of_images[key] != properties[key]}
    otherwise = {key: properties[key] for key in then}
    for key in then:
        properties[key] = {"description": Recipe.model_fields[key].description}
    [image_task] = [task for task, recipe in RECIPES.items() if issubclass(recipe, ImageRecipe)]
    is_image = {"properties": {"task": {"const": image_task}}, "required": ["task"]}
    schema["if"], schema["then"], schema["else"] = is_image, {"properties": then}, {"properties": otherwise}
    properties["strategy"] = {
        "description": properties["strategy"]["description"],
        "anyOf": [{"enum": list(STRATEGY_PRESETS)}, {"$ref": "#/$defs/StrategySection"}],
        "default": StrategySection.model_fields["name"].default,
    }
    return json.dumps(schema, indent=2) + "\n"
