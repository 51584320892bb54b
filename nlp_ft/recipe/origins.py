"""Where each setting of a resolved recipe comes from, shown beside it."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from nlp_ft.recipe.recipe import Recipe
from nlp_ft.recipe.resolve import Key, Layer
from nlp_ft.recipe.sections import Section
from nlp_ft.recipe.yaml_reader import one_line_yaml

DEFAULT = "default"
FURTHEST_COMMENT = 60
"""Most columns before the origins; a longer line has its origin two blanks behind it."""


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
