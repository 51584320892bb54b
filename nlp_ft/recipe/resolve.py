"""Where each setting of a recipe comes from: the layers that are laid over each other, and the recipe with its origins.

From the lowest to the highest: default, preset of the task, preset of the strategy, file, command line. The defaults
are those of the sections; they need no layer here, because validation fills them in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from nlp_ft.errors import RecipeError, printable
from nlp_ft.recipe.presets import STRATEGY_PRESETS, TASK_PRESETS, Preset, merged, without_replaced
from nlp_ft.recipe.problems import shown
from nlp_ft.recipe.recipe import Recipe
from nlp_ft.recipe.sections import Section
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.yaml_reader import DEEPEST, one_line_yaml, parse_yaml

DEFAULT, FILE, COMMAND_LINE = "default", "file", "command line"
FURTHEST_COMMENT = 60
"""Most columns before the origins; a longer line has its origin two blanks behind it."""
Key = tuple[str, ...]
"""The parts of a dotted key such as `optimizer.lr`."""


@dataclass(frozen=True)
class Layer:
    """The settings of one origin, as nested dicts."""

    origin: str
    values: Mapping[str, Any]


def settings_layers(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> list[Layer]:
    """The layers of a recipe from the lowest to the highest, without the defaults.

    Args:
        values: what the file holds; a top-level null stands for the default.
        overrides: `key=value` of the command line, in order.

    Raises:
        RecipeError: an override has another form, or sets something inside of a value that is no section.
    """
    given = {key: value for key, value in apply_overrides(values, overrides).items() if value is not None}
    strategy = given.get("strategy", {})
    if isinstance(strategy, str):
        strategy = given["strategy"] = {"name": strategy}
    name = strategy.get("name", StrategySection.model_fields["name"].default) if isinstance(strategy, dict) else None
    presets = [
        *_preset("task", given.get("task", Recipe.model_fields["task"].default), TASK_PRESETS, given),
        *_preset("strategy", name, STRATEGY_PRESETS, given),
    ]
    file, command_line = _told_apart(given, [_key(override) for override in overrides])
    return [*presets, Layer(FILE, file), Layer(COMMAND_LINE, command_line)]


def values_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """All layers laid over each other, as nested dicts to be validated."""
    return reduce(merged, (layer.values for layer in layers), {})


def origins(recipe: Recipe, layers: Sequence[Layer]) -> dict[str, str]:
    """Dotted key of each setting of a resolved recipe -> its origin: that of the highest layer that holds the key.

    A section has an origin where it is optional, such as `strategy.unfreeze`: that of the highest layer that sets
    anything in it.
    """
    return {
        ".".join(key): next((layer.origin for layer in reversed(layers) if _holds(layer.values, key)), DEFAULT)
        for key, value, is_optional in _settings(recipe)
        if is_optional or not isinstance(value, Section)
    }


def resolved_yaml(recipe: Recipe, layers: Sequence[Layer]) -> str:
    """Every setting on a line of its own, with its origin as a comment. It is YAML, and loads as the same recipe."""
    found, values = origins(recipe, layers), recipe.model_dump(mode="json")
    lines: list[tuple[str, str]] = []
    for key, value, _ in _settings(recipe):
        line = f"{'  ' * (len(key) - 1)}{key[-1]}:"
        if not isinstance(value, Section):
            line += f" {one_line_yaml(reduce(lambda inner, part: inner[part], key, values))}"
        lines.append((line, found.get(".".join(key), "")))
    column = min(max(len(line) for line, _ in lines), FURTHEST_COMMENT)
    return "".join(f"{line:<{column}}  # {origin}\n" if origin else f"{line}\n" for line, origin in lines)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested dicts with `a.b=value` set. Raises: RecipeError."""
    result = dict(values)
    for override in overrides:
        key = _key(override)
        result = _with(result, key, parse_yaml(override.partition("=")[2], override), override)
    return result


def _with(values: Mapping[str, Any], key: Key, value: Any, override: str, depth: int = 0) -> dict[str, Any]:
    """A copy with one key set; sections above it that are missing are made."""
    name = key[depth]
    if depth == len(key) - 1:
        return {**values, name: value}
    inner = values.get(name)
    if name == "strategy" and isinstance(inner, str):
        inner = {"name": inner}
    if not isinstance(inner, dict | None):
        above = printable(".".join(key[: depth + 1]))
        raise RecipeError(f"{shown(override)} cannot be set: {above} is no section, but {shown(inner)}")
    return {**values, name: _with(inner or {}, key, value, override, depth + 1)}


def _key(override: str) -> Key:
    key, equals, _ = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) > DEEPEST:
        raise RecipeError(f"{shown(override)} must have the form key=value, such as optimizer.lr=1e-4")
    return tuple(parts)


def _preset(kind: str, name: Any, presets: Mapping[str, Preset], given: Mapping[str, Any]) -> list[Layer]:
    """The layer of a preset, without the settings that the given ones replace; [] if no preset has that name."""
    if not isinstance(name, str) or name not in presets:
        return []
    return [Layer(f"preset of {kind} {name}", without_replaced(presets[name], given))]


def _told_apart(
    values: Mapping[str, Any], overridden: Sequence[Key], above: Key = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Given settings in two parts: those of the file, and those that the overridden keys have set."""
    file: dict[str, Any] = {}
    command_line: dict[str, Any] = {}
    for name, value in values.items():
        key = (*above, name)
        if key in overridden:
            command_line[name] = value
        elif isinstance(value, dict) and any(other[: len(key)] == key for other in overridden):
            file[name], command_line[name] = _told_apart(value, overridden, key)
        else:
            file[name] = value
    return file, command_line


def _holds(values: Any, key: Key) -> bool:
    for part in key:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _settings(section: Section, above: Key = ()) -> list[tuple[Key, Any, bool]]:
    """Each key with its value, and whether its default is null; a section is followed by its own keys."""
    found: list[tuple[Key, Any, bool]] = []
    for name, field in type(section).model_fields.items():
        key, value = (*above, name), getattr(section, name)
        found.append((key, value, field.default is None))
        found += _settings(value, key) if isinstance(value, Section) else []
    return found
