"""Triggers that begin a phase of training: a time, a metric on a plateau, or a small training loss."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError

AT_ONCE = Duration(0, "st")
LOWER_IS_BETTER = ("loss", "mse", "mae")
"""Endings of the names of metrics whose lower value is better."""


def is_better(metric: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether a value of a metric improves on the best value so far; NaN never does.

    Args:
        metric: name of the metric; a lower value is better if the name ends as one of `LOWER_IS_BETTER`.
        value: the new value.
        best: the best value before; None if there is none.
        min_delta: amount by which the value must exceed the best, in the metric's unit.
    """
    if math.isnan(value):
        return False
    if best is None:
        return True
    gain = best - value if metric.endswith(LOWER_IS_BETTER) else value - best
    return gain > min_delta


@dataclass(frozen=True)
class Plateau:
    """Begins a phase when a metric has stopped improving within the phase before it.

    Args:
        metric: name of a validation score; a lower value is better for losses and errors, see `LOWER_IS_BETTER`.
        patience: number of evaluations in a row without a better value, at least 1.
        min_delta: amount by which a value must improve to count as better, in the metric's unit.
        at_least: shortest length of the phase before.
        at_most: longest length of the phase before; None sets no limit. Durations may be texts, such as `200st`.

    Raises:
        UnfreezeError: `patience` is below 1, or a duration has the wrong form.
    """

    metric: str = "loss"
    patience: int = 1
    min_delta: float = 0.0
    at_least: Duration = AT_ONCE
    at_most: Duration | None = None

    def __post_init__(self) -> None:
        check_count("patience", self.patience)
        _read_bounds(self)

    def __str__(self) -> str:
        return f"{self.metric} on a plateau for {self.patience} evaluation(s)"


@dataclass(frozen=True)
class LossBelow:
    """Begins a phase when the mean training loss between two records falls below a value.

    Args:
        value: the value that the loss must fall below.
        at_least: shortest length of the phase before.
        at_most: longest length of the phase before; None sets no limit.
    """

    value: float
    at_least: Duration = AT_ONCE
    at_most: Duration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, Real):
            raise UnfreezeError(f"loss_below: value must be a number, got {self.value!r}")
        _read_bounds(self)

    def __str__(self) -> str:
        return f"training loss below {self.value:g}"


Trigger = Duration | Plateau | LossBelow
"""Begins a phase: a time since the start of the run, or a condition on the phase before."""


def as_duration(value: Duration | str, name: str) -> Duration:
    """Return a duration, read from its text if need be. Raises `UnfreezeError` with the name of the setting."""
    try:
        return value if isinstance(value, Duration) else Duration.parse(value)
    except ValueError as error:
        raise UnfreezeError(f"{name} {error}; got {value!r}") from None


def check_count(name: str, value: object) -> None:
    """Check a setting that counts something. Raises `UnfreezeError` unless it is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UnfreezeError(f"{name} must be a whole number of at least 1, got {value!r}")


def _read_bounds(trigger: "Plateau | LossBelow") -> None:
    for name in ("at_least", "at_most"):
        if (value := getattr(trigger, name)) is not None:
            object.__setattr__(trigger, name, as_duration(value, name))


def _condition(name: str, kind: type["Plateau | LossBelow"], settings: Any) -> "Plateau | LossBelow":
    """Make a condition of its plain values; None takes the default."""
    known = [field.name for field in fields(kind)]
    if not isinstance(settings, Mapping) or settings.keys() - set(known):
        raise UnfreezeError(f"{name} must be a mapping with some of the keys {', '.join(known)}; got {settings!r}")
    return kind(**{key: value for key, value in settings.items() if value is not None})


def as_trigger(name: str, settings: Any) -> Trigger:
    """Return the trigger of a setting, made from plain values if need be.

    Args:
        name: name of the setting: `every`, `plateau` or `loss_below`.
        settings: a trigger, or the plain values of one.

    Raises:
        UnfreezeError: a value has the wrong form or is out of range.
    """
    return settings if isinstance(settings, Trigger) else TRIGGERS[name](settings)


TRIGGERS: dict[str, Callable[[Any], Trigger]] = {
    "every": lambda settings: as_duration(settings, "every"),
    "plateau": lambda settings: _condition("plateau", Plateau, settings),
    "loss_below": lambda settings: _condition("loss_below", LossBelow, settings),
}
"""Name of a setting -> the function that makes a trigger of its value."""
