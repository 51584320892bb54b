"""The layers of settings that are laid over each other to make a recipe: presets, file, command line.

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
from nlp_ft.recipe.strategy import StrategySection
from nlp_ft.recipe.yaml_reader import DEEPEST, parse_yaml

FILE, COMMAND_LINE = "file", "command line"
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
    # An unknown key stays, to be refused.
    given = {
        key: value
        for key, value in apply_overrides(values, overrides).items()
        if value is not None or key not in Recipe.model_fields
    }
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
