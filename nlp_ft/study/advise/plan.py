"""Divides the time of the trials: which strategies run, for how many steps, scored on how many rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from nlp_ft.study.advise.prior import DEFAULT

LEAST_STEPS = 40
"""As long as there are several candidates, each gets so many steps: a shorter trial says little."""
FEWEST_STEPS = 8
"""With fewer steps, not even the default is tried."""
MOST_SCORED = 500
"""Rows of validation that a trial is scored on."""
SHARE_OF_SCORING = 0.3
"""Most of the time that scoring may take."""
LEAST_SCORED = 50
POINTS = 2
"""Times at which a trial is scored."""
COST = {"head_only": 0.35, "top_layers": 0.6, "gradual": 0.7, "lp_ft": 0.8}
"""Strategy -> its cost of a step / that of the default; 1 for the others. About, from a 6-layer encoder on a CPU."""


@dataclass(frozen=True)
class TrialPlan:
    """The strategies in the order in which they run; each has so many steps and is scored on so many rows."""

    strategies: Sequence[str]
    steps: int
    rows: int


def plan_trials(
    candidates: Sequence[str],
    seconds: float,
    step_seconds: float,
    row_seconds: float,
    start_seconds: float,
    full_steps: int,
    validation_rows: int,
) -> TrialPlan:
    """Let as many candidates run as get `LEAST_STEPS` each; all get the same number of steps, so that they compare.

    Args:
        candidates: strategies, the default first, then by how much one wants to know them.
        seconds: the time for all trials.
        step_seconds: seconds of a step of the default.
        row_seconds: seconds to score a row.
        start_seconds: seconds from one trial to the first step of the next.
        full_steps: steps of the whole run.
        validation_rows: rows of validation.

    Returns:
        The plan; after the default the cheapest strategies come first. Without time for `FEWEST_STEPS` it has none.
    """
    chosen = list(candidates)
    while chosen:
        rows = _rows(len(chosen), seconds, row_seconds, validation_rows)
        left = seconds - len(chosen) * (start_seconds + POINTS * rows * row_seconds)
        steps = int(left / (step_seconds * sum(COST.get(name, 1.0) for name in chosen)))
        if steps >= min(LEAST_STEPS, full_steps) or len(chosen) == 1:
            ordered = sorted(chosen, key=lambda name: (name != DEFAULT, COST.get(name, 1.0)))
            return TrialPlan(ordered if steps >= min(FEWEST_STEPS, full_steps) else [], min(steps, full_steps), rows)
        chosen.pop()
    return TrialPlan([], 0, 0)


def _rows(num_trials: int, seconds: float, row_seconds: float, validation_rows: int) -> int:
    affordable = int(SHARE_OF_SCORING * seconds / (POINTS * num_trials * row_seconds))
    return min(validation_rows, MOST_SCORED, max(LEAST_SCORED, affordable))
