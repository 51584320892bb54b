"""What a comparison found: for each strategy its scores, its gain over the baseline with intervals, and its cost."""

import statistics as means
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ft.study import statistics
from nlp_ft.study.flops import flops_of_run
from nlp_ft.study.statistics import Interval, Variances
from nlp_ft.training.verdict.facts import points

SAME_TIME = 1.1
"""Factor between two times, up to which they count as the same."""


@dataclass(frozen=True)
class Runs:
    """The chosen runs of a strategy, one for each seed, in the order of the seeds.

    Args:
        strategy: its name.
        rate: the chosen learning rate; None for a probe.
        edge: `lowest` or `highest` if the rate is at that edge of its grid, else an empty text.
        summaries: what summary.json holds.
        tests: what `scored_on_test` gives.
        folders: their run folders.
        flops: floating-point operations of a step in each phase, see flops.py; none if they could not be counted.
    """

    strategy: str
    rate: float | None
    edge: str
    summaries: Sequence[Mapping[str, Any]]
    tests: Sequence[Mapping[str, Any]]
    folders: Sequence[Path] = ()
    flops: Sequence[int] = ()

    def scores(self, metric: str) -> np.ndarray:
        """The test score of each seed, (seeds,)."""
        return np.array([test["scores"][metric] for test in self.tests])

    def first(self, num_seeds: int) -> "Runs":
        """The same of the first seeds alone."""
        return replace(self, summaries=self.summaries[:num_seeds], tests=self.tests[:num_seeds])

    def without(self) -> np.ndarray:
        """The same without each group of rows, (seeds, groups)."""
        return np.array([test["without"] for test in self.tests])

    def interval(self, metric: str) -> tuple[float, float]:
        """The bounds of the mean score over new seeds and new rows; with one seed, over new rows alone."""
        scores, of_groups = self.scores(metric), statistics.deviations(self.scores(metric), self.without())
        if len(scores) > 1:
            return _variances(scores, of_groups, self, metric).interval(float(scores.mean()), len(scores)).bounds
        low, high = statistics.over_rows(scores, of_groups)
        return low, high

    @property
    def train_flops(self) -> int | None:
        """The floating-point operations of all training steps; the median over the seeds."""
        # A probe takes no steps; what it computes is not counted.
        if not self.flops or self.rate is None:
            return None
        return int(means.median(flops_of_run(summary, self.flops) for summary in self.summaries))

    def median(self, key: str) -> float:
        """The median of a number of the summaries over the seeds."""
        return float(means.median(summary[key] for summary in self.summaries))


@dataclass(frozen=True)
class Gain:
    """By how much a strategy is better than the baseline, in the unit of the metric; above 0 is better.

    Args:
        value: mean over the seeds.
        interval: the headline, which crosses seeds and rows; None with one seed.
        of_seeds: the interval over seeds alone; None with one seed.
        of_rows: the bounds over test rows alone.
        parts: the variances, for the power; None with one seed.
        p_rows: with one seed and accuracy the p value of McNemar's test; else None.
    """

    value: float
    interval: Interval | None
    of_seeds: Interval | None
    of_rows: tuple[float, float]
    parts: Variances | None
    p_rows: float | None


@dataclass(frozen=True)
class Judged:
    """A strategy with its gain, its word and the p value behind it; the baseline has none of the three."""

    runs: Runs
    gain: Gain | None = None
    word: str = "baseline"
    p_value: float | None = None
    dominated_by: str = ""
    """A strategy that scores no less and takes no more time; empty if there is none, as on the Pareto front."""


def judge(runs: Sequence[Runs], baseline: str, metric: str, sign: int, margin: float) -> list[Judged]:
    """Compare every strategy with the baseline.

    Args:
        runs: the chosen runs of each strategy; a pair is compared by the seeds that both have.
        baseline: name of the baseline.
        metric: the compared score.
        sign: -1 if a lower score is better, else 1.
        margin: differences below it count as equal, in the unit of the metric.
    """
    [base] = [one for one in runs if one.strategy == baseline]
    others = [one for one in runs if one.strategy != baseline]
    gains = {one.strategy: gain_of(one, base, metric, sign) for one in others}
    # With one seed there is no p value that speaks of new ones.
    intervals = {name: gain.interval for name, gain in gains.items() if gain.interval is not None}
    known = [*intervals.values()]
    word_of = {baseline: "baseline", **dict(zip(intervals, statistics.words(known, margin)))}
    p_of = dict(zip(intervals, statistics.holm([one.p_different for one in known])))
    return [
        Judged(
            one,
            gains.get(one.strategy),
            word_of.get(one.strategy, "cannot tell yet"),
            p_of.get(one.strategy),
            _dominating(one, runs, metric, sign),
        )
        for one in runs
    ]


def gain_of(runs: Runs, base: Runs, metric: str, sign: int) -> Gain:
    """Compute the gain of a strategy over the baseline, seed by seed and group by group of the same rows."""
    runs, base = (one.first(min(len(runs.tests), len(base.tests))) for one in (runs, base))
    differences = sign * (runs.scores(metric) - base.scores(metric))
    of_runs, of_base = (statistics.deviations(one.scores(metric), one.without()) for one in (runs, base))
    of_groups = sign * (of_runs - of_base)
    several = len(differences) > 1
    parts = _variances(differences, of_groups, runs, metric) if several else None
    p_rows = None
    if not several and runs.tests[0]["hits"] is not None:
        p_rows = statistics.mcnemar(*(np.array(one.tests[0]["hits"], dtype=bool) for one in (runs, base)))
    return Gain(
        value=float(differences.mean()),
        interval=None if parts is None else parts.interval(float(differences.mean()), len(differences)),
        of_seeds=statistics.over_seeds(differences) if several else None,
        of_rows=statistics.over_rows(differences, of_groups),
        parts=parts,
        p_rows=p_rows,
    )


def _variances(values: np.ndarray, of_groups: np.ndarray, runs: Runs, metric: str) -> Variances:
    """Estimate the variances of scores, or of differences, (seeds,); a share that never varies counts as undecided."""
    parts = statistics.variances(values, of_groups)
    varies = parts.interval(0.0, len(values)).error > statistics.TIE
    is_share = points(metric, 0.01) == "1.0 points"
    return parts if varies or not is_share else statistics.undecided(runs.tests[0]["rows"], parts.num_groups)


def _dominating(runs: Runs, others: Sequence[Runs], metric: str, sign: int) -> str:
    """Name a strategy on the front that is no worse in score and in time, and clearly better in one of them."""
    score, seconds = sign * runs.scores(metric).mean(), runs.median("train_seconds")
    found = []
    for other in others:
        its_score, its_seconds = sign * other.scores(metric).mean(), other.median("train_seconds")
        is_clear = its_score > score or SAME_TIME * its_seconds < seconds
        if its_score >= score and its_seconds <= seconds and is_clear:
            found.append((-its_score, its_seconds, other.strategy))
    return min(found)[-1] if found else ""
