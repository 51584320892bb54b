"""The JSON Schema of recipes: every key described, both tasks in it, and the shipped file up to date."""

import json
import re
from pathlib import Path
from typing import Any

import nlp_ft
from nlp_ft.recipe import RECIPES, Recipe, TextRecipe
from nlp_ft.recipe.loader import json_schema
from nlp_ft.recipe.sections import DataSection, ModelSection, Section
from nlp_ft.recipe.strategy import TriggerSection
from nlp_ft.recipe.text import TextFilesSection
from nlp_ft.recipe.training import TrainingSection

SCHEMA_FILE = Path(nlp_ft.__file__).parent / "recipe/recipe.schema.json"


def test_every_field_of_the_json_schema_is_described() -> None:
    schema = json.loads(json_schema())
    objects = {"Recipe": schema, **schema["$defs"]}
    fields = {f"{name}.{key}": field for name, found in objects.items() for key, field in found["properties"].items()}
    bases = (DataSection, TextFilesSection, ModelSection, TriggerSection)
    # In the schema all recipes share one object, which has the keys of TextRecipe.
    leaves = [section for section in _subclasses(Section) if section not in bases and not issubclass(section, Recipe)]
    leaves.append(TextRecipe)
    assert len(fields) == sum(len(section.model_fields) for section in leaves)
    undescribed = [name for name, field in fields.items() if not (field.get("description") or _section(field, objects))]
    assert undescribed == []


def test_the_description_of_the_metric_names_those_of_every_task() -> None:
    said = TrainingSection.model_fields["metric"].description or ""
    words = set(re.findall(r"\w+", said))
    assert {task: set(recipe.metrics) - words for task, recipe in RECIPES.items()} == {task: set() for task in RECIPES}


def test_the_schema_file_is_the_json_schema_of_recipes() -> None:
    remedy = "make it anew: nlp-ft schema > schema.json && mv schema.json nlp_ft/recipe/recipe.schema.json"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json_schema(), remedy


def test_the_schema_has_the_sections_of_every_task() -> None:
    schema = json.loads(json_schema())
    found, branch = {}, schema
    while "if" in branch:
        assert branch["if"]["required"] == ["task"]
        found[tuple(branch["if"]["properties"]["task"]["enum"])] = _sections(branch["then"])
        branch = branch["else"]
    assert found == {
        ("image_classification",): ("ImageDataSection", "ImageModelSection"),
        ("token_classification",): ("WordsDataSection", "TextModelSection"),
        ("question_answering",): ("QuestionDataSection", "TextModelSection"),
        ("multiple_choice",): ("ChoiceDataSection", "TextModelSection"),
    }
    assert _sections(branch) == ("TextDataSection", "TextModelSection")
    assert schema["additionalProperties"] is False


def _sections(branch: dict[str, Any]) -> tuple[str, str]:
    data, model = (branch["properties"][key]["$ref"].removeprefix("#/$defs/") for key in ("data", "model"))
    return data, model


def _subclasses(section: type[Section]) -> list[type[Section]]:
    return [found for child in section.__subclasses__() for found in (child, *_subclasses(child))]


def _section(field: dict[str, Any], objects: dict[str, Any]) -> str | None:
    """What the section says of itself: pydantic leaves the field's description out where the two are the same."""
    found: str | None = objects[field["$ref"].rsplit("/", 1)[-1]].get("description") if "$ref" in field else None
    return found
