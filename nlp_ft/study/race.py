"""Races the strategies of a comparison within a budget of time: seed by seed, those clearly behind are dropped.

Who is behind is judged on validation alone; test is scored after the race. The decisions are a function of the finished
cells, so a race that is stopped goes on as it would have gone.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nlp_ft.errors import TrainingError
from nlp_ft.screen import say
from nlp_ft.study import statistics
from nlp_ft.study.cells import Cell, Plan
from nlp_ft.study.folder import read_object
from nlp_ft.study.process import Start
from nlp_ft.study.running import chosen, finished_seeds, is_finished, is_lower_better, run_cells, summary_of
from nlp_ft.training import durable
from nlp_ft.training.verdict.facts import points

SPENT = "spent.json"
"""The seconds of all starts of the command so far."""
CLEAR = 2.0
"""One seed is enough where the deficit is so many times the two intervals that the validation rows alone give."""

LEAST_SEEDS = 3
"""Seeds from which the interval over them is believed."""
LOWEST = -1e6
"""What a score that is no number counts as."""


@dataclass(frozen=True)
class Deficit:
    """How far a strategy is behind the best one on validation, in the unit of the metric; `seeds` they share."""

    best: str
    value: float
    seeds: int


class Clock:
    """Counts the seconds of a race over all starts of the command.

    Args:
        plan: the comparison.
        budget: seconds that may be used up.
        now: reads a clock, in seconds.
    """

    def __init__(self, plan: Plan, budget: float, now: Callable[[], float] = time.monotonic) -> None:
        self.plan, self.budget, self._now, self._begun = plan, budget, now, now()
        file = plan.folder / SPENT
        remedy = "remove it, and the time counts from the start"
        self._before = read_object(file, remedy).get("seconds", 0.0) if file.exists() else 0.0

    @property
    def spent(self) -> float:
        """Seconds that are used up."""
        return float(self._before + self._now() - self._begun)

    def note(self) -> None:
        """Write down what is used up, for the next start of the command."""
        durable.write_text(self.plan.folder / SPENT, json.dumps({"seconds": round(self.spent, 1)}) + "\n")

    def has_time(self, cell: Cell) -> bool:
        """Whether a cell may begin: what is left is enough for it, as far as earlier seeds of it tell."""
        self.note()
        earlier = [Cell(cell.strategy, cell.factor, seed) for seed in range(cell.seed)]
        seconds = [
            summary_of(self.plan, one).get("total_seconds", 0.0) for one in earlier if is_finished(self.plan, one)
        ]
        return self.spent + max(seconds, default=0.0) < self.budget


def race(
    plan: Plan, jobs: int, margin: float, clock: Clock, start: Start, check_stop: Callable[[], None]
) -> dict[str, Deficit]:
    """Train the cells seed by seed until the budget is used up; return the dropped strategies.

    Args:
        plan: the comparison.
        jobs: processes that train at the same time.
        margin: deficits below it drop no strategy, in the unit of the metric.
        clock: knows the time that is left.
        start: starts the training of a cell.
        check_stop: raises KeyboardInterrupt if the cells are to end.

    Raises:
        TrainingError: a cell cannot be trained, or the budget is too small for one run of the baseline.
    """
    dropped: dict[str, Deficit] = {}
    for seed in range(plan.num_seeds):
        cells = [cell for cell in plan.cells if cell.seed == seed and cell.strategy not in dropped]
        # The middle rates first, later the best so far: where the time ends, the most seeds are those of the best rate.
        best = chosen(plan, seed) if seed else {}
        cells.sort(key=lambda cell: (cell.factor != best.get(cell.strategy, 1.0), abs(math.log(cell.factor))))
        say(f"seed {seed}: {', '.join(dict.fromkeys(cell.strategy for cell in cells))}")
        try:
            run_cells(plan, jobs, start, check_stop, cells, clock.has_time)
        finally:
            clock.note()  # also after Ctrl-C
        if not all(is_finished(plan, cell) for cell in cells):
            say("the time is used up; --budget with more, or none, goes on from here")
            break
        for strategy, deficit in behind(plan, seed + 1, margin, without=[*dropped]).items():
            dropped[strategy] = deficit
            say(f"{strategy} is dropped after {seed + 1} seed(s): {words(plan, deficit)}")
    if plan.baseline not in chosen(plan):
        raise TrainingError(
            f"--budget: the time was used up before one run of the baseline {plan.baseline} was finished; with more, "
            "the same command goes on"
        )
    return dropped


def behind(plan: Plan, num_seeds: int, margin: float, without: Sequence[str] = ()) -> dict[str, Deficit]:
    """Find the strategies that are clearly behind the best one after so many seeds, each at its best rate so far.

    The baseline is never among them, as all others are compared with it.
    """
    so_far = [strategy for strategy in plan.recipes if strategy not in without]
    factors = chosen(plan, num_seeds)
    scores = {strategy: _scores(plan, strategy, factors[strategy], num_seeds) for strategy in so_far}
    best = max(so_far, key=lambda strategy: float(scores[strategy].mean()))
    rows = partial(_half_width, plan, factors)
    found = {}
    for strategy in so_far:
        if strategy not in (best, plan.baseline):
            differences = scores[best] - scores[strategy]
            if is_behind(differences, margin, CLEAR * (rows(best) + rows(strategy))):
                found[strategy] = Deficit(best, float(differences.mean()), num_seeds)
    return found


def is_behind(differences: np.ndarray, margin: float, clear: float) -> bool:
    """Whether a strategy is clearly behind.

    Args:
        differences: score of the best one minus its own of each seed, (seeds,).
        margin: mean differences up to it never count.
        clear: a mean difference above it counts whatever the seeds say.
    """
    mean = float(differences.mean())
    if mean <= margin:
        return False
    return mean > clear or (len(differences) >= LEAST_SEEDS and statistics.over_seeds(differences).bounds[0] > 0)


def words(plan: Plan, deficit: Deficit) -> str:
    """Say how far a strategy is behind."""
    return f"{points(plan.metric, deficit.value)} behind {deficit.best} on validation"


def unfinished(plan: Plan, dropped: Mapping[str, Deficit]) -> dict[str, dict[str, Any]]:
    """Describe the strategies that have not trained all seeds of all rates: `seeds` finished, and `why`."""
    found = {}
    for strategy in plan.recipes:
        of_strategy = [cell for cell in plan.cells if cell.strategy == strategy]
        if not all(is_finished(plan, cell) for cell in of_strategy):
            seeds = max(finished_seeds(plan, strategy, factor) for factor in plan.factors_of(strategy))
            why = f"dropped, {words(plan, dropped[strategy])}" if strategy in dropped else "the time was used up"
            found[strategy] = {"seeds": seeds, "why": why}
    return found


def _scores(plan: Plan, strategy: str, factor: float, num_seeds: int) -> np.ndarray:
    """Read the validation scores of the first seeds, higher is better, (seeds,)."""
    sign = -1 if is_lower_better(plan.metric) else 1
    summaries = [summary_of(plan, Cell(strategy, factor, seed)) for seed in range(num_seeds)]
    values = np.array([sign * one["metrics"]["validation"][plan.metric] for one in summaries], dtype=float)
    return np.where(np.isnan(values), LOWEST, values)


def _half_width(plan: Plan, factors: Mapping[str, float], strategy: str) -> float:
    """Half the 95 % interval of the score of seed 0 over new validation rows; infinite where it is not known."""
    margins = summary_of(plan, Cell(strategy, factors[strategy], 0)).get("margins", {})
    return float(margins.get("validation", {}).get(plan.metric, math.inf))
