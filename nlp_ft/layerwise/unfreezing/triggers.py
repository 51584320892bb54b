"""What begins a phase of training: a time, a metric on a plateau, or a training loss that is small enough."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError

AT_ONCE = Duration(0, "st")


LOWER_IS_BETTER = ("loss", "mse", "mae")
"""How names of losses and errors end."""


def is_better(metric: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether a value of a metric improves on the best so far; NaN never does, and gives way to any number.

    Args:
        metric: its name; those that end as `LOWER_IS_BETTER` says improve downwards, all others upwards.
        value: the new value.
        best: the best before; None for none.
        min_delta: what it must improve by at least, in the metric's unit.
    """
    if math.isnan(value):
        return False
    if best is None:
        return True
    gain = best - value if metric.endswith(LOWER_IS_BETTER) else value - best
    return gain > min_delta


@dataclass(frozen=True)
class Plateau:
    """Begin the next phase when a metric has stopped improving within this one.

    Args:
        metric: name of a validation score; losses and errors improve downwards, see `LOWER_IS_BETTER`.
        patience: evaluations in a row without a better value.
        min_delta: what counts as better, in the metric's unit.
        at_least: the phase before lasts at least so long.
        at_most: and at most so long; None for no bound.
    """

    metric: str = "loss"
    patience: int = 1
    min_delta: float = 0.0
    at_least: Duration = AT_ONCE
    at_most: Duration | None = None

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise UnfreezeError(f"patience must be at least 1 evaluation, got {self.patience}")

    def __str__(self) -> str:
        return f"{self.metric} on a plateau for {self.patience} evaluation(s)"


@dataclass(frozen=True)
class LossBelow:
    """Begin the next phase when the mean training loss between two records falls below a value."""

    value: float
    at_least: Duration = AT_ONCE
    at_most: Duration | None = None

    def __str__(self) -> str:
        return f"training loss below {self.value:g}"


Trigger = Duration | Plateau | LossBelow
"""A time of the run, or a condition on the phase before."""


def as_duration(value: Duration | str) -> Duration:
    """A duration from its text. Raises: ValueError."""
    return value if isinstance(value, Duration) else Duration.parse(value)


def _bounds(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with its `at_least` and `at_most` as durations; None stands for a default."""
    given = {key: value for key, value in settings.items() if value is not None}
    return {key: as_duration(value) if key in ("at_least", "at_most") else value for key, value in given.items()}


def as_trigger(name: str, settings: Any) -> Trigger:
    """The trigger of a setting of that name: as it is, or made from plain values. Raises: ValueError."""
    return settings if isinstance(settings, Trigger) else TRIGGERS[name](settings)


TRIGGERS: dict[str, Callable[[Any], Trigger]] = {
    "every": as_duration,
    "plateau": lambda settings: Plateau(**_bounds(settings)),
    "loss_below": lambda settings: LossBelow(**_bounds(settings)),
}
"""Name of a setting -> the trigger of its value."""
