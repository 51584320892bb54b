"""The settings that `nlp-ft tune` searches, written `key=low..high` or `key=a,b,c`. Imports no Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlp_ft.errors import RecipeError
from nlp_ft.recipe.loader import apply_overrides, read_yaml, recipe_from_dict
from nlp_ft.recipe.sections import is_share
from nlp_ft.recipe.yaml_reader import parse_yaml

WIDE = 10.0
"""A range whose ends are this factor apart is searched on a logarithmic scale, as learning rates always are."""
RATES = ("lr", "head_lr")
FIXED = ("output_dir", "data.validation", "data.test", "training.metric")
DRAWN_FROM = ("data.source", "data.train")
"""Settings by which all trials are judged alike; the last two where validation is a share of train."""
FEWER, MORE = 0.2, 5.0
"""The default range of a learning rate, as factors on the derived one."""


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; whole ones if both are."""

    low: float
    high: float
    is_log: bool

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that the recipe must accept."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that the recipe must accept."""
        return self.values


Space = dict[str, Range | Choice]
"""Dotted key of a recipe -> where its value is searched."""


def read_space(words: Sequence[str]) -> Space:
    """Read a space.

    Args:
        words: `key=low..high`, `key=a,b,c`, or the name of a YAML file that maps keys to `low..high` or to a list.

    Raises:
        RecipeError: a range or a file cannot be read.
    """
    space: Space = {}
    for word in words:
        key, equals, text = word.partition("=")
        entries: Mapping[str, Any] = {key: text} if equals else read_yaml(Path(word))
        for name, value in entries.items():
            space[name] = _read(name, value)
    return space


def default_space(recipe: Mapping[str, Any]) -> Space:
    """Search the learning rates around those of the recipe, and the layer decay where several layers train.

    Args:
        recipe: the recipe with derived rates, as nested dicts.

    Raises:
        RecipeError: it has no rates.
    """
    rates = {key: rate for key in RATES if (rate := recipe["optimizer"][key]) is not None}
    if recipe["strategy"]["probe"] is not None:
        raise RecipeError("strategy probe takes no steps, so it has no rate to search; name other settings in --space")
    space: Space = {
        f"optimizer.{key}": Range(_three_digits(FEWER * rate), _three_digits(MORE * rate), True)
        for key, rate in rates.items()
    }
    trains_more = recipe["strategy"]["trainable_blocks"] != 0 or recipe["strategy"]["unfreeze"] is not None
    # `full` means one rate for all layers, and the recipe refuses it with another decay.
    if trains_more and recipe["strategy"]["name"] != "full":
        space["optimizer.layer_decay"] = Range(0.6, 1.0, False)
    return space


def require_valid(space: Space, values: Mapping[str, Any], origin: str) -> None:
    """Check that the recipe accepts the ends of each range, and each value. Raises: RecipeError: it does not."""
    fixed = (*FIXED, *(DRAWN_FROM if is_share(values["data"].get("validation")) else ()))
    for key, where in space.items():
        if key in fixed:
            raise RecipeError(f"--space {key}: trials that differ in it do not compare, or read test; set it for all")
        for value in where.examples:
            recipe_from_dict(
                apply_overrides(values, [f"{key}={written(where, value)}"]), f"--space {key}={value}: {origin}"
            )


def written(where: Range | Choice, value: Any) -> str:
    """Write a value as in an override of the command line; a number that is drawn from a range has three digits."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.3g}" if isinstance(where, Range) and isinstance(value, float) else str(value)


def _read(key: str, value: Any) -> Range | Choice:
    if isinstance(value, dict):
        raise RecipeError(f"--space {key}: write the keys below it with dots, such as {key}.{next(iter(value), 'key')}")
    if isinstance(value, list):
        return _choice(key, value)
    first, dots, last = str(value).partition("..")
    if not dots:
        return _choice(key, [parse_yaml(part, f"--space {key}={value}") for part in str(value).split(",")])
    low, high = (parse_yaml(part, f"--space {key}={value}") for part in (first, last))
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not low < high:
        raise RecipeError(
            f"--space {key}={value}: a range goes from a number to a higher one, such as optimizer.lr=1e-5..1e-3; "
            "durations and names are listed, such as training.duration=2ep,3ep"
        )
    is_log = low > 0 and (high / low >= WIDE or key.rpartition(".")[2] in RATES)
    return Range(low, high, is_log)


def _choice(key: str, values: list[Any]) -> Choice:
    if len(values) < 2 or any(isinstance(value, dict | list) for value in values):
        raise RecipeError(
            f"--space {key}: must be a range such as {key}=low..high, or two values or more such as {key}=a,b; "
            f"got {values}"
        )
    return Choice(tuple(values))


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")
