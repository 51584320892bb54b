"""From the prior and the measurements to advice. Pure: it reads numbers and returns numbers and words.

A gain over the default strategy is believed as a normal distribution. A measurement with its error moves it; the less
certain a measurement, the less it moves. Another strategy than the default is advised only where the gain is above the
noise, or where it costs a fraction and loses nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.prior import DEFAULT, GAINS, Belief, Prior, belief

SEED = 1.0
"""Deviation of a score between seeds, in points; a difference has twice the variance."""
CARRIED_ON = 3.0
"""Deviation, in points, of a difference at the end of a run around that at its beginning; or that of the belief."""
SHOWN = 1.0
"""A gain of so many deviations is above the noise."""
CHEAP, MARGIN = 1 / 3, 1.0
"""A strategy that takes at most that share of the time is advised if it surely loses at most that many points."""
CLOSE = 1.0
"""Advice is right if no other strategy is that many points better."""
MOST_GAIN = 0.5
"""The share of a probe's errors that fine-tuning is expected to remove at most."""
Word = Literal["better", "worse", "within noise", "not measured"]


@dataclass(frozen=True)
class Measured:
    """What was measured of a strategy.

    Args:
        gain: over the default, in points; its error is that of other rows of validation.
        source: where it comes from, for people.
        done: share of the whole run that was seen, 1 for a probe.
    """

    gain: Estimate
    source: str
    done: float = 1.0

    def error(self, believed: Belief) -> float:
        """Compute the error that counts: of other rows, other seeds, and of what the rest of the run changes."""
        rest = max(CARRIED_ON, believed.deviation) * (1 - self.done)
        return math.hypot(self.gain.error, SEED * math.sqrt(2), rest)


@dataclass(frozen=True)
class Cost:
    """What a whole run takes: seconds, from the least to the most that is expected, and bytes; None if not known."""

    seconds: float
    least: float
    most: float
    memory: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A strategy with what was believed, what was measured, and what is believed now; gains in points."""

    strategy: str
    prior: Belief
    measured: Measured | None
    gain: Belief
    score: Estimate
    cost: Cost

    @property
    def word(self) -> Word:
        """How it compares with the default."""
        if self.measured is None:
            return "not measured"
        if abs(self.gain.mean) < SHOWN * self.gain.deviation:
            return "within noise"
        return "better" if self.gain.mean > 0 else "worse"

    def chance_above(self, points: float) -> float:
        """Return the chance that the gain is above so many points."""
        if not self.gain.deviation:
            return float(self.gain.mean > points)
        return 0.5 * math.erfc((points - self.gain.mean) / self.gain.deviation / math.sqrt(2))


@dataclass(frozen=True)
class Choice:
    """The advised strategy, why, and how sure that is: the chance that no other one is a point better."""

    strategy: str
    reason: str
    sure: float
    candidates: Sequence[Candidate]

    @property
    def advised(self) -> Candidate:
        """The candidate that is advised."""
        return next(one for one in self.candidates if one.strategy == self.strategy)


def updated(prior: Belief, measured: Measured | None) -> Belief:
    """Put a belief and a measurement together, each weighted by its precision."""
    if measured is None or not prior.deviation:
        return prior
    of_prior, of_measured = prior.deviation**-2, measured.error(prior) ** -2
    mean = (of_prior * prior.mean + of_measured * measured.gain.value) / (of_prior + of_measured)
    return Belief(mean, (of_prior + of_measured) ** -0.5)


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """Put independent estimates of one value together, each weighted by its precision; their errors are above 0."""
    weights = [one.error**-2 for one in estimates]
    value = sum(weight * one.value for weight, one in zip(weights, estimates)) / sum(weights)
    return Estimate(value, sum(weights) ** -0.5)


def beyond_probe(probe: Estimate, head: Measured | None, unit: float) -> Estimate:
    """Predict the score of the default from that of a probe, whose best possible score is 1.

    Args:
        probe: the score of the probe.
        head: what was measured of the head alone; the published gain moves with it.
        unit: one point.
    """
    gain = updated(GAINS["head_only"], head)
    most = MOST_GAIN * (1 - probe.value)
    return Estimate(
        probe.value + min(-gain.mean * unit, most), math.hypot(probe.error, min(gain.deviation * unit, most))
    )


def choose(
    candidates: Sequence[str],
    prior: Prior,
    measured: Mapping[str, Measured],
    default_score: Estimate,
    costs: Mapping[str, Cost],
    unit: float,
    sign: int,
) -> Choice:
    """Advise on a strategy.

    Args:
        candidates: the strategies, the default among them.
        prior: the answer of the table.
        measured: strategy -> what was measured; none of the default.
        default_score: the predicted score of the default.
        costs: strategy -> cost of the whole run.
        unit: one point, in the unit of the score.
        sign: -1 if a lower score is better, else 1.
    """
    judged = []
    for name in candidates:
        believed = belief(name, prior)
        gain = updated(believed, measured.get(name))
        error = math.hypot(default_score.error, unit * gain.deviation)
        score = Estimate(default_score.value + sign * unit * gain.mean, error)
        judged.append(Candidate(name, believed, measured.get(name), gain, score, costs[name]))
    strategy, reason = _chosen(judged, prior)
    advised = next(one for one in judged if one.strategy == strategy)
    rivals = [_chance_of_more(one, advised) for one in judged if one is not advised]
    return Choice(strategy, reason, 1 - max(rivals, default=0.0), judged)


def _chosen(judged: Sequence[Candidate], prior: Prior) -> tuple[str, str]:
    others = [one for one in judged if one.strategy != DEFAULT and one.measured is not None]
    better = [one for one in others if one.word == "better"]
    if better:
        best = max(better, key=lambda one: one.gain.mean)
        return best.strategy, (
            f"it is {best.gain.mean:+.1f} ± {best.gain.deviation:.1f} points better than {DEFAULT}, which is above the "
            "noise"
        )
    default = next(one for one in judged if one.strategy == DEFAULT)
    cheap = [
        one
        for one in others
        if one.cost.seconds <= CHEAP * default.cost.seconds and one.chance_above(-MARGIN) >= _chance_shown()
    ]
    if cheap:
        best = max(cheap, key=lambda one: one.gain.mean)
        share = best.cost.seconds / default.cost.seconds
        return best.strategy, (
            f"it loses at most {MARGIN:g} point to {DEFAULT} ({best.gain.mean:+.1f} ± {best.gain.deviation:.1f}), in "
            f"{100 * share:.0f} % of the time"
        )
    return DEFAULT, _why_default(others, prior)


def _why_default(others: Sequence[Candidate], prior: Prior) -> str:
    open_ones = [one.strategy for one in others if one.word == "within noise"]
    worse = [one.strategy for one in others if one.word == "worse"]
    parts = []
    if open_ones:
        parts.append(f"cannot tell: {', '.join(open_ones)} and {DEFAULT} are within noise, so the default stays")
    if worse:
        parts.append(f"{', '.join(worse)} {'are' if len(worse) > 1 else 'is'} worse")
    if not parts:
        parts.append("nothing else was measured, so the default stays")
    if prior.strategy not in (DEFAULT, *worse, *open_ones):
        parts.append(f"the table's {prior.strategy} was not measured")
    return "; ".join(parts)


def _chance_of_more(one: Candidate, advised: Candidate) -> float:
    """Return the chance that a candidate is `CLOSE` points better than the advised one."""
    gain = Belief(one.gain.mean - advised.gain.mean, math.hypot(one.gain.deviation, advised.gain.deviation))
    if not gain.deviation:
        return float(gain.mean > CLOSE)
    return 0.5 * math.erfc((CLOSE - gain.mean) / gain.deviation / math.sqrt(2))


def _chance_shown() -> float:
    return 1 - 0.5 * math.erfc(SHOWN / math.sqrt(2))
