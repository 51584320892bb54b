"""From trials and probe to what advice needs: gains over the default, its predicted score, and costs."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nlp_ft.study.advise.advice import Candidate, Choice, Cost, Measured, beyond_probe, choose, combined
from nlp_ft.study.advise.curves import Estimate, after_steps
from nlp_ft.study.advise.evidence import Evidence
from nlp_ft.study.advise.plan import COST
from nlp_ft.study.advise.prior import DEFAULT, Prior
from nlp_ft.study.advise.probing import Probe, is_share
from nlp_ft.study.advise.trials import Trial, difference, score_error
from nlp_ft.study.running import is_lower_better

PROBED = "head_only"
"""The strategy that a probe measures."""
SPREAD = 1.25
"""A cost is expected within this factor of its prediction, beside the spread of the steps that were timed."""
CACHED_STEP = 0.01
"""Seconds of a step of the head alone over cached features."""


def chosen(
    trials: Mapping[str, Trial],
    first: Trial,
    probe: Probe | None,
    prior: Prior,
    facts: Evidence,
    metric: str,
) -> Choice | None:
    """Predict the score of the default, measure the others against it, and choose.

    Args:
        trials: strategy -> its trial.
        first: the run that was timed.
        probe: what the probe says; None where there is none.
        prior: the answer of the table.
        facts: the facts of the data.
        metric: the score.

    Returns:
        The choice; None if neither a trial nor a probe tells anything.
    """
    sign = -1 if is_lower_better(metric) else 1
    default = trials.get(DEFAULT)
    unit = 0.01 if is_share(metric) or default is None else max(1e-9, 0.01 * abs(default.score))
    of_trial = None if default is None else _carried_on(default, sign, unit)
    of_probe = None if probe is None else probe.score(facts.rows)
    measured = {} if default is None else _gains(trials, default, sign, unit)
    if of_probe is not None and of_trial is not None and PROBED not in measured:
        gap, error = of_probe.value - of_trial.value, float(np.hypot(of_probe.error, of_trial.error))
        measured[PROBED] = Measured(Estimate(gap / unit, error / unit), "probe")
    estimates = [] if of_trial is None else [of_trial]
    # A trial that was the whole run has the score of it; a probe may be better where that run is too short.
    was_whole = default is not None and default.steps == default.full_steps
    if of_probe is not None and not was_whole:
        estimates.append(beyond_probe(of_probe, measured.get(PROBED), unit))
    if not estimates:
        return None
    names = dict.fromkeys([DEFAULT, *trials, *measured, prior.strategy])
    costs = {name: cost_of(name, trials, first, facts) for name in names}
    choice = choose(list(names), prior, measured, combined(estimates), costs, unit, sign)
    return bounded(choice) if is_share(metric) else choice


def bounded(choice: Choice) -> Choice:
    """Keep the predicted scores between 0 and 1, beyond which sums of gains can lead."""

    def within(one: Candidate) -> Candidate:
        return replace(one, score=Estimate(min(max(one.score.value, 0.0), 1.0), one.score.error))

    return replace(choice, candidates=[within(one) for one in choice.candidates])


def cost_of(name: str, trials: Mapping[str, Trial], first: Trial, facts: Evidence) -> Cost:
    """Predict the seconds of training and validation of a whole run, and its memory."""
    trial = trials.get(name)
    known = trial or trials.get(DEFAULT, first)
    seconds_of = known.step_seconds * (1.0 if trial else COST.get(name, 1.0))
    scoring = known.evaluations * facts.validation_rows * known.row_seconds
    if name == PROBED and facts.is_cached:
        # The blocks stay frozen: their output for each text is computed once, and kept.
        scoring = (facts.rows + facts.validation_rows) * known.row_seconds
        seconds_of = np.full(1, CACHED_STEP)
    middle = float(seconds_of.mean())
    low, high = (float(np.quantile(seconds_of, share)) for share in (0.25, 0.75))
    return Cost(
        known.full_steps * middle + scoring,
        (known.full_steps * min(low, middle) + scoring) / SPREAD,
        (known.full_steps * max(high, middle) + scoring) * SPREAD,
        trial.memory if trial else None,
    )


def interval(score: Estimate, first: Trial, metric: str, rows: int) -> tuple[float, float]:
    """Bound the score on so many new rows, with 95 %."""
    value = min(max(score.value, 0.0), 1.0) if is_share(metric) else score.value
    half = float(np.hypot(1.96 * score.error, first.outputs.margin(metric, value, rows)))
    low, high = value - half, value + half
    return (max(0.0, low), min(1.0, high)) if is_share(metric) else (low, high)


def _carried_on(default: Trial, sign: int, unit: float) -> Estimate:
    """Carry the score of a trial on to the end of the run; the error counts other rows and another seed, too."""
    carried = after_steps(default.points, 1.0 if sign > 0 else 0.0, default.full_steps)
    return Estimate(carried.value, float(np.sqrt(carried.error**2 + score_error(default) ** 2 + unit**2)))


def _gains(trials: Mapping[str, Trial], default: Trial, sign: int, unit: float) -> dict[str, Measured]:
    found = {}
    for name, trial in trials.items():
        if name != DEFAULT:
            gap = difference(trial, default, sign)
            done = trial.steps / trial.full_steps
            found[name] = Measured(Estimate(gap.value / unit, gap.error / unit), "trial", done)
    return found
