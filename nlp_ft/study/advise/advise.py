"""Gathers the evidence, runs the trials and makes the advice: one call a line in `advise`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_ft.environment import num_launched
from nlp_ft.errors import TrainingError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, read_yaml, recipe_from_dict
from nlp_ft.screen import say
from nlp_ft.study.advise import evidence, settings
from nlp_ft.study.advise.advice import Choice, Cost, Measured, beyond_probe, choose, combined
from nlp_ft.study.advise.curves import Estimate, after_steps
from nlp_ft.study.advise.evidence import Evidence
from nlp_ft.study.advise.labels import labels_advice
from nlp_ft.study.advise.plan import COST, LEAST_STEPS, plan_trials
from nlp_ft.study.advise.prior import DEFAULT, Prior, table_answer
from nlp_ft.study.advise.probing import Probe, probe
from nlp_ft.study.advise.settings import Setting
from nlp_ft.study.advise.trials import Trial, difference, run_trial, score_error
from nlp_ft.study.cells import with_strategy
from nlp_ft.study.running import is_lower_better
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.verdict.facts import points, shown

TRIED = ("full", "lp_ft", "top_layers", "gradual")
"""The strategies that are tried beside the default, the answer of the table and the recipe's own, as far as time goes."""
PROBED = "head_only"
"""The strategy that a probe measures."""
SHARE_OF_PROBE = 0.3
"""The share of the budget that the probe may take."""
FIRST_STEPS, FIRST_ROWS = 3, 16
"""Length of the run that is timed before the trials are planned."""
DRAWN = "20%"
"""Share of train that is validation where the recipe has none."""
SPREAD = 1.25
"""A cost is expected within this factor of its prediction, beside the spread of the steps that were timed."""
CACHED_STEP = 0.01
"""Seconds of a step of the head alone over cached features."""


@dataclass(frozen=True)
class Advice:
    """Everything that was found.

    Args:
        values: the recipe as it was read, with its overrides.
        own: its own strategy.
        metric: the score that is predicted.
        evidence: the facts of the data.
        prior: the answer of the table.
        probe: what the probe says; None where there is none.
        trials: the trials, by strategy.
        choice: the advised strategy among the candidates.
        settings: its settings.
        labels_first: whether more labels are the better advice.
        labels: a sentence on more labels.
        interval: the 95 % interval of the predicted score on as many new rows as validation has.
        seconds: what the advice took.
        was_drawn: whether validation was drawn from train.
    """

    values: Mapping[str, Any]
    own: str
    metric: str
    evidence: Evidence
    prior: Prior
    probe: Probe | None
    trials: Mapping[str, Trial]
    choice: Choice
    settings: Sequence[Setting]
    labels_first: bool
    labels: str
    interval: tuple[float, float]
    seconds: float
    was_drawn: bool


def advise(file: str, overrides: Sequence[str] = (), budget: float = 120.0) -> Advice:
    """Find out which strategy to take for a recipe, from train and validation alone.

    Args:
        file: the recipe.
        overrides: `key=value` that override its settings.
        budget: the seconds that it may take, about.

    Raises:
        NlpFtError: the recipe, its data or its model cannot be used, or the budget is too short.
    """
    if num_launched() > 1:
        raise TrainingError("advise runs in one process; start it without a launcher")
    begun = time.monotonic()
    values = apply_overrides(read_yaml(file), overrides)
    own = recipe_from_dict(values, file).strategy.name
    recipes = _Recipes(values, own, file)
    recipe = recipes[DEFAULT]
    task = task_of(recipe)
    say("reading the data")
    prior, candidates = _prior(task, recipe, own)
    facts = evidence.gather(task, {name: recipes[name] for name in {**dict.fromkeys(candidates), PROBED: None}})
    say("probing the frozen network")
    probed = probe(recipe, task, SHARE_OF_PROBE * budget)
    tried = [name for name in candidates if probed is None or name != PROBED]
    trials, first = _run_trials(recipes, tried, facts.validation_rows, begun + budget)
    metric = recipe.training.metric
    choice, default = _chosen(trials, first, probed, prior, facts, metric, [*tried, *([PROBED] if probed else [])])
    found = settings.settings_of(recipes[choice.strategy], task_of(recipes[choice.strategy]), facts.lengths)
    rivals = [one.gain.mean for one in choice.candidates if one.strategy != choice.strategy and one.measured]
    first_labels, labels = labels_advice(
        probed.curve(facts.rows) if probed else None, choice.advised.gain.mean - max(rivals, default=0.0)
    )
    return Advice(
        values=values,
        own=own,
        metric=metric,
        evidence=facts,
        prior=prior,
        probe=probed,
        trials=trials,
        choice=choice,
        settings=found,
        labels_first=first_labels,
        labels=labels,
        interval=_interval(choice.advised.score, first, metric, facts.validation_rows),
        seconds=time.monotonic() - begun,
        was_drawn=recipes.was_drawn,
    )


class _Recipes:
    """Strategy -> its recipe, without a test split, and with a validation split drawn from train if there is none."""

    def __init__(self, values: Mapping[str, Any], own: str, file: str) -> None:
        data = {**(values.get("data") or {}), "test": None}
        self.was_drawn = data.get("validation") is None
        if self.was_drawn:
            data["validation"] = DRAWN
        self.values, self.own, self.file = {**values, "data": data, "baselines": False, "trackers": []}, own, file

    def __getitem__(self, strategy: str) -> Recipe:
        values = with_strategy(self.values, strategy, self.own)
        return recipe_from_dict(values, f"{self.file} with strategy {strategy}")


def _prior(task: Any, recipe: Recipe, own: str) -> tuple[Prior, list[str]]:
    """Look up the table, and list the candidates in the order in which one wants to know them."""
    words = evidence.words_of(task)
    prior = table_answer(task.data.windows("train").num_rows, None if words is None else words.tokens_per_word)
    return prior, list(dict.fromkeys([DEFAULT, prior.strategy, own, *TRIED[:2], PROBED, *TRIED[2:]]))


def _run_trials(
    recipes: _Recipes, candidates: Sequence[str], validation_rows: int, end: float
) -> tuple[dict[str, Trial], Trial]:
    """Time a few steps, plan the trials and run them; return them, and the timed run."""
    began = time.monotonic()
    first = run_trial(recipes[DEFAULT], FIRST_STEPS, _sample(validation_rows, FIRST_ROWS), points=1)
    steps_took = float(first.step_seconds.mean())
    start = max(0.0, time.monotonic() - began - FIRST_STEPS * steps_took - FIRST_ROWS * first.row_seconds)
    plan = plan_trials(
        candidates, end - time.monotonic(), steps_took, first.row_seconds, start, first.full_steps, validation_rows
    )
    trials: dict[str, Trial] = {}
    rows = _sample(validation_rows, plan.rows)
    for number, name in enumerate(plan.strategies):
        left = end - time.monotonic()
        needed = start + plan.steps * COST.get(name, 1.0) * steps_took
        if trials and left < needed / 2:
            say(f"no time is left for {', '.join(plan.strategies[number:])}")
            break
        say(f"trial {number + 1}/{len(plan.strategies)}: {name}, {plan.steps} of {first.full_steps} steps")
        trials[name] = run_trial(recipes[name], plan.steps, rows)
        if name == DEFAULT:
            steps_took = float(trials[name].step_seconds.mean())
    return trials, first


def _sample(num_rows: int, most: int) -> np.ndarray:
    """Choose rows that are spread evenly."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, most)).round().astype(np.int64))


def _chosen(
    trials: Mapping[str, Trial],
    first: Trial,
    probed: Probe | None,
    prior: Prior,
    facts: Evidence,
    metric: str,
    candidates: Sequence[str],
) -> tuple[Choice, Estimate]:
    """Predict the score of the default, measure the others against it, and choose."""
    sign = -1 if is_lower_better(metric) else 1
    is_share = points(metric, 0.01) == "1.0 points"
    default = trials.get(DEFAULT)
    if default is None or default.steps < LEAST_STEPS:
        default = None
    unit = 0.01 if is_share or default is None else max(1e-9, 0.01 * abs(default.score))
    estimates, of_trial = [], None
    if default is not None:
        carried = after_steps(default.points, 1.0 if sign > 0 else 0.0, default.full_steps)
        of_trial = Estimate(carried.value, float(np.hypot(carried.error, np.hypot(score_error(default, metric), unit))))
        estimates.append(of_trial)
    of_probe = probed.score(facts.rows) if probed else None
    if of_probe is not None:
        estimates.append(beyond_probe(of_probe, unit))
    if not estimates:
        raise TrainingError(
            f"--budget is too short for {LEAST_STEPS} steps of {DEFAULT}, of {first.step_seconds.mean():.1f} s each, "
            "and there is no probe for this task; give more time"
        )
    score = combined(estimates)
    measured: dict[str, Measured] = {}
    for name, trial in trials.items():
        if default is not None and name != DEFAULT:
            gap = difference(trial, default, metric, sign)
            done = trial.steps / trial.full_steps
            source = f"trial of {trial.steps} of {trial.full_steps} steps"
            measured[name] = Measured(Estimate(gap.value / unit, gap.error / unit), source, done)
    if of_probe is not None and of_trial is not None:
        gap = Estimate((of_probe.value - of_trial.value) / unit, float(np.hypot(of_probe.error, of_trial.error)) / unit)
        measured[PROBED] = Measured(gap, "probe")
    kept = [name for name in dict.fromkeys(candidates) if name in (DEFAULT, PROBED, prior.strategy) or name in trials]
    costs = {name: _cost(name, trials, first, facts) for name in kept}
    return choose(kept, prior, measured, score, costs, unit, sign), score


def _cost(name: str, trials: Mapping[str, Trial], first: Trial, facts: Evidence) -> Cost:
    """Predict the seconds of training and validation of a whole run, and its memory."""
    trial = trials.get(name)
    known = trial or trials.get(DEFAULT, first)
    steps, factor = known.full_steps, 1.0 if trial else COST.get(name, 1.0)
    seconds_of = known.step_seconds * factor
    scoring = known.evaluations * facts.validation_rows * known.row_seconds
    middle = float(seconds_of.mean())
    if facts.trainable.get(name) == min(facts.trainable.values()) and name == PROBED:
        # The blocks stay frozen: their output is computed once, and kept.
        scoring, middle = (facts.rows + facts.validation_rows) * known.row_seconds, CACHED_STEP
        seconds_of = np.array([middle])
    low, high = (float(np.quantile(seconds_of, share)) for share in (0.25, 0.75))
    low, high = min(low, middle) / SPREAD, max(high, middle) * SPREAD
    return Cost(
        steps * middle + scoring,
        steps * low + scoring / SPREAD,
        steps * high + scoring * SPREAD,
        trial.memory if trial else None,
    )


def _interval(score: Estimate, first: Trial, metric: str, rows: int) -> tuple[float, float]:
    """Bound the score on as many new rows as validation has, with 95 %."""
    value = min(max(score.value, 0.0), 1.0) if points(metric, 0.01) == "1.0 points" else score.value
    of_rows = first.predictions.outputs.margin(metric, value, rows)
    half = float(np.hypot(1.96 * score.error, of_rows))
    low, high = value - half, value + half
    return (max(0.0, low), min(1.0, high)) if points(metric, 0.01) == "1.0 points" else (low, high)


def predicted(advice: Advice) -> str:
    """Write the predicted score with its interval."""
    low, high = (shown(advice.metric, bound) for bound in advice.interval)
    return f"{shown(advice.metric, advice.choice.advised.score.value)} ({low} to {high})"
