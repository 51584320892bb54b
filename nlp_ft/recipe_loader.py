"""From a YAML file and `key=value` overrides to a `Recipe`, or to one error that lists every problem."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nlp_ft.errors import RecipeError
from nlp_ft.recipe import RECIPES, ImageRecipe, Recipe, TextRecipe
from nlp_ft.recipe_errors import problems_of
from nlp_ft.strategies import STRATEGY_PRESETS


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: `2e-5` is a number, `no` is text; a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text, each once."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(?:\.\d+|\d+\.?\d*)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
# The empty value (`key:` alone) has no first character.
_Loader.yaml_implicit_resolvers[""] = [("tag:yaml.org,2002:null", re.compile("$"))]
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _float(node.value))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


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
        problems = [f"{origin}: {problem}" for problem in problems_of(error, recipe)]
        raise RecipeError("\n".join(problems)) from None


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain dicts; `recipe_from_dict` gives the same recipe back."""
    return recipe.model_dump(mode="json")


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML of nested dicts, in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


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


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises: RecipeError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise RecipeError(f"{path}: cannot be read as a recipe: {reason}") from None
    values = _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: must hold `key: value` lines, got {'nothing' if values is None else repr(text[:40])}"
        )
    return values


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested dicts with `a.b=value` set. Raises: RecipeError."""
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise RecipeError(f"{override!r} must have the form key=value, such as optimizer.lr=1e-4")
        target = result
        *parents, last = key.split(".")
        for parent in parents:
            inner = target.get(parent)
            if parent == "strategy" and isinstance(inner, str):
                inner = {"name": inner}
            target[parent] = inner if isinstance(inner, dict) else {}
            target = target[parent]
        target[last] = _parse_yaml(text, override)
    return result


def _parse_yaml(text: str, origin: str) -> Any:
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
        json.dumps(values, default=str)  # refuses an alias that holds itself
        return values
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise RecipeError(f"{origin}:{where} not valid YAML: {error.problem}") from None
    except RecursionError:
        raise RecipeError(f"{origin}: not valid YAML: it is nested too deeply") from None
    except ValueError as error:
        raise RecipeError(f"{origin}: not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin}: not valid YAML: {str(error).splitlines()[0]}") from None


def _float(text: str) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


def _recipe_class(values: Mapping[str, Any]) -> type[Recipe]:
    """That of the task; of the nearest where the task is misspelt, so that only the task is wrong."""
    near = get_close_matches(str(values.get("task")), RECIPES, n=1, cutoff=0.3)
    return RECIPES[near[0]] if near else TextRecipe


def _with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe laid over the preset of its strategy."""
    result = dict(values)
    strategy = result.get("strategy", "llrd")
    result["strategy"] = {"name": strategy} if isinstance(strategy, str) else strategy
    name = result["strategy"].get("name") if isinstance(result["strategy"], dict) else None
    for section, preset in STRATEGY_PRESETS.get(name, {}).items() if isinstance(name, str) else []:
        given = result.get(section)
        given = {} if given is None else given
        result[section] = _laid_over(preset, given) if isinstance(given, dict) else given
    return {key: value for key, value in result.items() if value is not None}


def _laid_over(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values before those of the preset, in mappings inside too.

    Of the preset's `unfreeze`, what the given one replaces goes.
    """
    replaced = {"layers": ("every", "order"), "plateau": ("every",), "loss_below": ("every",)}
    gone = {key for name, keys in replaced.items() if given.get(name) is not None for key in keys}
    preset = {key: value for key, value in preset.items() if key not in gone}
    inner = {
        key: _laid_over(preset[key], value)
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(preset.get(key), dict)
    }
    return {**preset, **given, **inner}
