"""Durations as people write them, with their unit: `3ep` (epochs), `200st` (optimizer steps), `10%` (of the run)."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

FORM = r"([0-9]+(?:\.[0-9]+)?)\s*(ep|st|%)"
"""Number and unit of a duration, as a regular expression of Python and of JSON Schema."""
LONGEST = 1_000_000_000
"""Epochs or steps of the longest duration."""


@dataclass(frozen=True)
class Duration:
    """A length of training: `value` in epochs (`ep`), optimizer steps (`st`) or percent of the run (`%`).

    Raises:
        ValueError: the value is negative or not finite, or it is a fraction of a step.
    """

    value: float
    unit: Literal["ep", "st", "%"]

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise ValueError(f"must be a number that is 0 or more, got {self.value}")
        if self.unit == "st" and self.value != int(self.value):
            raise ValueError("must be a whole number of steps")

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Read `3ep`, `0.5ep`, `200st` or `10%`.

        Raises:
            ValueError: the text has another form; the message suggests the right one.
        """
        match = re.fullmatch(FORM, text.strip()) if isinstance(text, str) else None
        if match is None:
            hint = ""
            if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text <= LONGEST:
                hint = f"; did you mean {text}ep{f' or {text}st' if isinstance(text, int) else ''}?"
            raise ValueError(f"must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run){hint}")
        value, unit = float(match[1]), match[2]
        limit = 100 if unit == "%" else LONGEST
        if value > limit:
            raise ValueError(f"must be at most {limit}{unit}")
        return cls(value, unit)  # type: ignore[arg-type]  # the pattern admits these three units only

    def steps(self, steps_per_epoch: int, total_steps: int = 0) -> int:
        """The length in optimizer steps: epochs are rounded up, shares down.

        Args:
            steps_per_epoch: optimizer steps of one epoch.
            total_steps: optimizer steps of the whole run, of which a share is taken.
        """
        # In decimals, as the value was written: binary 0.55 * 100 is above 55. Rounding to 9 places removes the error
        # of a value that was computed before, such as a third of the run.
        value = Decimal(repr(self.value))
        if self.unit == "ep":
            return math.ceil(round(value * steps_per_epoch, 9)) or math.ceil(value * steps_per_epoch)
        if self.unit == "%":
            return math.floor(round(value * total_steps / 100, 9))
        return int(value)

    def __str__(self) -> str:
        return f"{Decimal(repr(self.value)).normalize():f}{self.unit}"
