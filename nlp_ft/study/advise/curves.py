"""Curves that are carried on: a score over the steps of a run, and a score over the rows of train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

USUAL_POWER, MOST_POWER = 0.1, 0.6
"""The error of a run falls with such powers of its steps: the usual one, and the highest that is believed."""
MOST_ROW_POWER = 1.0
"""The highest power of the rows that is believed."""


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float


def after_steps(points: Sequence[tuple[int, float]], best: float, total: int) -> Estimate:
    """Carry a score on to the end of a run: its distance to the best possible score falls as a power of the steps.

    The power is the mean of that between the last two points and the usual one. The error is half of what is added.

    Args:
        points: (step, score), ascending, at least one.
        best: the best possible score, such as 1 of accuracy and 0 of a loss.
        total: the steps of the whole run.
    """
    step, score = points[-1]
    distance = abs(best - score)
    power = USUAL_POWER
    if len(points) > 1 and distance > 0:
        before, earlier = points[-2]
        seen = math.log(max(abs(best - earlier), distance) / distance) / math.log(step / before)
        power = (USUAL_POWER + min(seen, MOST_POWER)) / 2
    left = distance * (step / max(total, step)) ** power
    added = distance - left
    return Estimate(score + math.copysign(added, best - score), added / 2)


@dataclass(frozen=True)
class RowCurve:
    """The error of a probe as a power of the rows: error = factor x rows ^ -power."""

    factor: float
    power: float
    power_error: float
    rows: int
    """The rows of train."""

    def error_rate(self, rows: float) -> float:
        """Return the error rate with so many rows."""
        return float(self.factor * rows**-self.power)

    def gain(self, times: float) -> Estimate:
        """Return the gain of so many times the rows, as a share."""
        here = self.error_rate(self.rows)
        gain = here * (1 - times**-self.power)
        slope = here * times**-self.power * math.log(times)
        return Estimate(gain, slope * self.power_error)

    def rows_for(self, gain: float) -> int | None:
        """Find how many more rows bring such a gain; None if none do."""
        here = self.error_rate(self.rows)
        if self.power <= 0 or gain >= here:
            return None
        times: float = (1 - gain / here) ** (-1 / self.power)
        return round(self.rows * (times - 1))


def row_curve(points: Sequence[tuple[int, float, float]], num_rows: int) -> RowCurve | None:
    """Fit a power law by weighted least squares of the logarithms; a perfect score counts as half an error.

    Args:
        points: (rows, score, standard error of it).
        num_rows: rows of train.

    Returns:
        The curve; None with fewer than two points.
    """
    if len(points) < 2:
        return None
    rows = np.array([point[0] for point in points], dtype=float)
    errors = np.maximum(1 - np.array([point[1] for point in points]), 0.5 / rows)
    deviations = np.maximum([point[2] for point in points], 0.5 / rows) / errors
    weights = deviations**-2
    x, y = np.log(rows), np.log(errors)
    centre = (weights * x).sum() / weights.sum()
    spread = float((weights * (x - centre) ** 2).sum())
    slope = float((weights * (x - centre) * y).sum()) / spread
    power = min(max(-slope, 0.0), MOST_ROW_POWER)
    middle = float((weights * y).sum() / weights.sum())
    return RowCurve(math.exp(middle + power * centre), power, spread**-0.5, num_rows)
