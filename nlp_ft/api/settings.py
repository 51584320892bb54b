"""From keywords such as `lr=1e-4` to the nested settings of a recipe, or to one error that lists every problem."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

from nlp_ft.errors import RecipeError, printable
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.problems import sections_in
from nlp_ft.suggest import did_you_mean

WORDS_OF_OTHERS = {
    "learning_rate": "lr",
    "epochs": 'duration="3ep"',
    "num_epochs": 'duration="3ep"',
    "num_train_epochs": 'duration="3ep"',
    "max_steps": 'duration="200st"',
    "num_steps": 'duration="200st"',
    "batch_size": "per_device_batch_size",
    "per_device_train_batch_size": "per_device_batch_size",
    "model_name": "model",
}
"""Names of other libraries -> the keyword that means the same here."""


@dataclass(frozen=True)
class Key:
    """A key of a recipe: its dotted name, and whether it lies in a section that most runs do not have."""

    name: str
    is_optional: bool

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


def settings_from(keywords: Mapping[str, Any], recipe: type[Recipe]) -> dict[str, Any]:
    """Sort keywords into the sections of a recipe.

    A keyword is a section with a dict (`optimizer={"lr": 1e-4}`), a dotted key, or the last part of one. Where several
    keys end alike, those in sections that every run has go before those in optional ones, such as `early_stopping`.

    Args:
        keywords: the settings as they were given.
        recipe: the recipe class of the task.

    Raises:
        RecipeError: a keyword is unknown, may mean several keys, or sets what another one sets; one line for each.
    """
    keys = list(_keys(recipe))
    values: dict[str, Any] = {}
    problems: list[str] = []
    for keyword, value in keywords.items():
        found = _meant(keyword, keys, recipe)
        if isinstance(found, str):
            problems.append(found)
            continue
        for key, one in _leaves(found, _plain(value), recipe):
            if _is_set(values, key):
                problems.append(f"{printable(keyword)} sets {'.'.join(key)}, which another keyword sets too; give one")
            else:
                _set(values, key, one)
    if problems:
        raise RecipeError("\n".join(f"fit: {problem}" for problem in problems))
    return values


def _meant(keyword: str, keys: Sequence[Key], recipe: type[Recipe]) -> list[str] | str:
    """Find the parts of the key that a keyword means; or say why there is none."""
    if keyword in recipe.model_fields or keyword in {key.name for key in keys}:
        return keyword.split(".")
    alike = [key for key in keys if key.last == keyword]
    chosen = [key for key in alike if not key.is_optional] or alike
    if len(chosen) == 1:
        return chosen[0].name.split(".")
    if chosen:
        names = sorted((key.name for key in chosen), key=lambda name: name.count("."))
        return f'{keyword} may mean {" or ".join(names)}; write **{{"{names[0]}": ...}}'
    return f"{printable(keyword)} is no setting{_near(keyword, keys)}"


def _near(keyword: str, keys: Sequence[Key]) -> str:
    if keyword in WORDS_OF_OTHERS:
        return f"; did you mean {WORDS_OF_OTHERS[keyword]}?"
    if "." in keyword:
        return did_you_mean(keyword, [key.name for key in keys])
    return did_you_mean(keyword, dict.fromkeys(key.last for key in keys))


def _keys(section: Any, above: str = "", is_optional: bool = False) -> Iterator[Key]:
    """List the keys of a recipe or section, those of its sections included."""
    for name, field in section.model_fields.items():
        inner = sections_in(field.annotation)
        if above or not inner:
            yield Key(above + name, is_optional)
        for one in inner:
            yield from _keys(one, f"{above}{name}.", is_optional or field.default is None)


def _leaves(key: list[str], value: Any, recipe: type[Recipe]) -> Iterator[tuple[list[str], Any]]:
    """Split what is given for a section into its keys; a text alone is the name, as in `model="bert-base-uncased"`."""
    inner = sections_in(recipe.model_fields[key[0]].annotation) if len(key) == 1 else []
    if inner and isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield [*key, *str(name).split(".")], one
    elif inner and isinstance(value, str) and "name" in inner[0].model_fields:
        yield [*key, "name"], value
    else:
        yield key, value


def _plain(value: Any) -> Any:
    """Turn paths into texts, and numbers of NumPy into those of Python."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, Number) and hasattr(value, "item") else value


def _is_set(values: Mapping[str, Any], key: Sequence[str]) -> bool:
    for part in key:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _set(values: dict[str, Any], key: Sequence[str], value: Any) -> None:
    for part in key[:-1]:
        values = values.setdefault(part, {})
    values[key[-1]] = value
