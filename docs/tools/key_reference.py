"""The reference of recipe keys, made from the JSON Schema of each task's recipe. Imports no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from docs.tools.default_sources import DEFAULT_SOURCES
from nlp_ft.recipe import RECIPES
from nlp_ft.recipe import presets as recipe_presets

Schema = Mapping[str, Any]
TASK_PRESETS: Mapping[str, Schema] = getattr(recipe_presets, "TASK_PRESETS", {})


@dataclass(frozen=True)
class Key:
    """One key of a recipe: its dotted name, its type with bounds, its default and its description."""

    name: str
    type: str
    default: str
    description: str

    def __str__(self) -> str:
        source = DEFAULT_SOURCES.get(self.name)
        return (
            f'<div class="key" id="{self.name}" markdown>\n'
            f"[`{self.name}`](#{self.name})\n"
            f'<span class="key-type" markdown>{self.type} · {self.default}</span>\n\n'
            f"{self.description}{f' *Source of the default: {source}.*' if source else ''}\n</div>"
        )


def key_reference() -> str:
    """A heading for each section of a recipe, and under it each key with the tasks that have it."""
    tasks_of: dict[Key, list[str]] = {}
    for task in RECIPES:
        for key in keys_of(task):
            tasks_of.setdefault(key, []).append(task)
    parts = []
    for section in dict.fromkeys(_section(key) for key in tasks_of):
        parts.append(f"## {f'`{section}`' if section else 'Top level'}")
        of_section = {key: tuple(tasks) for key, tasks in tasks_of.items() if _section(key) == section}
        for tasks in sorted(dict.fromkeys(of_section.values()), key=len, reverse=True):
            if len(tasks) < len(RECIPES):
                parts.append(f"### Only for {' and '.join(tasks)} {{: .key-tasks }}")
            parts += [str(key) for key, of_key in of_section.items() if of_key == tasks]
    return "\n\n".join(_with_one_id_each(parts))


def _with_one_id_each(parts: list[str]) -> Iterator[str]:
    """A key that differs between tasks stands there several times; only the first keeps the plain id."""
    seen: dict[str, int] = {}
    for part in parts:
        name = part.partition('id="')[2].partition('"')[0]
        seen[name] = seen.get(name, 0) + 1
        again = f"{name}-{seen[name]}"
        yield (
            part
            if not name or seen[name] == 1
            else part.replace(f'id="{name}"', f'id="{again}"').replace(f"(#{name})", f"(#{again})")
        )


def _section(key: Key) -> str:
    return key.name.partition(".")[0] if "." in key.name else ""


def keys_of(task: str) -> list[Key]:
    """Every key of a task's recipes, those of inner sections with a dotted name."""
    schema = RECIPES[task].model_json_schema()
    return list(_keys(schema, schema.get("$defs", {}), "", TASK_PRESETS.get(task, {})))


def _keys(section: Schema, definitions: Schema, prefix: str, preset: Schema) -> Iterator[Key]:
    required = section.get("required", [])
    for name, field in section["properties"].items():
        inner = _inner_section(field, definitions)
        default = preset.get(name, field.get("default"))
        if inner is None or _can_be_null(field):
            default = [] if "default" not in field and field.get("type") == "array" else default
            text = "required" if name in required else f"default {_value(default)}"
            yield Key(prefix + name, _type(field, definitions), text, field.get("description", ""))
        if inner is not None:
            yield from _keys(inner, definitions, f"{prefix}{name}.", default if isinstance(default, dict) else {})


def _inner_section(field: Schema, definitions: Schema) -> Schema | None:
    """The section that a field holds, also where null may stand in its place; None for a plain value."""
    for option in [field, *field.get("anyOf", []), *field.get("allOf", [])]:
        target = definitions.get(str(option.get("$ref", "")).rpartition("/")[2], {})
        if "properties" in target:
            return target  # type: ignore[no-any-return]
    return None


def _can_be_null(field: Schema) -> bool:
    return {"type": "null"} in field.get("anyOf", [])


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    if isinstance(value, str | int):
        return f"`{value}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, dict) and value.keys() == {"value", "unit"}:
        return f"`{value['value']:g}{value['unit']}`"
    return f"`{json.dumps(value)}`"


def _type(field: Schema, definitions: Schema) -> str:
    """A type in words, with its bounds."""
    if "anyOf" in field:
        return " or ".join(_type(option, definitions) for option in field["anyOf"])
    if "$ref" in field:
        target = definitions[field["$ref"].rpartition("/")[2]]
        return "section" if "properties" in target else _type(target, definitions)
    if "enum" in field:
        return "one of " + ", ".join(_value(choice) for choice in field["enum"])
    if "const" in field:
        return _value(field["const"])
    kind = field.get("type")
    if kind == "array":
        return _list(field, definitions)
    if kind == "object":
        values = field.get("additionalProperties")
        return f"mapping to {_type(values, definitions)}" if isinstance(values, dict) else "mapping"
    if kind in ("integer", "number"):
        return ", ".join([{"integer": "whole number", "number": "number"}[kind], *_bounds(field)])
    if "ep|st" in field.get("pattern", ""):
        return "duration"
    return {"string": "text", "boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "any value")


def _list(field: Schema, definitions: Schema) -> str:
    if "prefixItems" in field:
        return "list of " + " and ".join(_type(item, definitions) for item in field["prefixItems"])
    return f"list of {_type(field.get('items', {}), definitions)}"


def _bounds(field: Schema) -> list[str]:
    words = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    return [f"{word} {_number(field[name])}" for name, word in words.items() if name in field]


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def presets_table() -> str:
    """What each strategy's name sets, as a table."""
    lines = ["| preset | what it sets |", "|---|---|"]
    for name, sections in recipe_presets.STRATEGY_PRESETS.items():
        settings = [f"`{key}: {_plain(value)}`" for key, value in _settings(sections)]
        lines.append(f"| `{name}` | {', '.join(settings)} |")
    return "\n".join(lines)


def _settings(sections: Schema, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sections.items():
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')
