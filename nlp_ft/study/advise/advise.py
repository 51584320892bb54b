"""Gathers the evidence, runs the trials and makes the advice: one call a line in `advise`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from nlp_ft.environment import num_launched
from nlp_ft.errors import NlpFtError, TrainingError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import apply_overrides, read_yaml, recipe_from_dict
from nlp_ft.screen import say
from nlp_ft.study.advise import evidence, settings
from nlp_ft.study.advise.advice import Choice
from nlp_ft.study.advise.domain import Domain, domain_of
from nlp_ft.study.advise.evidence import Evidence
from nlp_ft.study.advise.labels import labels_advice
from nlp_ft.study.advise.measures import PROBED, chosen, interval
from nlp_ft.study.advise.plan import COST, FEWEST_STEPS, plan_trials
from nlp_ft.study.advise.prior import DEFAULT, Prior, table_answer
from nlp_ft.study.advise.probing import Probe, probe
from nlp_ft.study.advise.settings import Setting
from nlp_ft.study.advise.trials import Trial, run_trial
from nlp_ft.study.advise.words import Words, words_of
from nlp_ft.study.cells import with_strategy, without_test
from nlp_ft.tables import wrapped
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training import build

TRIED = ("full", "lp_ft", "top_layers", "gradual")
"""What is tried after the default, the head alone, the table's answer and the recipe's own strategy."""
UNTRIED = ("probe",)
"""Strategies without steps; the head alone stands for them."""
SHARE_OF_PROBE, SHARE_OF_DOMAIN = 0.3, 0.1
"""The shares of the budget that the probe may take, and the distance to general English."""
FIRST_STEPS, FIRST_ROWS = 3, 16
"""Length of the run that is timed before the trials are planned."""
DRAWN = "20%"
"""Share of train that is validation where the recipe has none."""


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
    if shared := task.describe_data()["validation"].get("also_in_train"):
        say(wrapped(f"look: {shared:,} row(s) of validation also occur in train, so scores and advice are too good"))
    say("probing the frozen network")
    network = _network(task)
    words, domain = words_of(task), domain_of(task, network, SHARE_OF_DOMAIN * budget)
    prior = _prior(task, words, domain)
    candidates = recipes.possible(_candidates(prior, own), task)
    facts = evidence.gather(task, {name: recipes[name] for name in candidates}, words, domain)
    probed = probe(recipe, task, network, SHARE_OF_PROBE * budget)
    trials, first = _run_trials(recipes, candidates, facts.validation_rows, begun + budget)
    metric = recipe.training.metric
    choice = _require(chosen(trials, first, probed, prior, facts, metric), first)
    advised, given = recipes[choice.strategy], with_strategy(values, choice.strategy, own)
    found = settings.settings_of(advised, task_of(advised), facts.lengths, given)
    labels_first, labels = _labels(choice, probed, facts)
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
        labels_first=labels_first,
        labels=labels,
        interval=interval(choice.advised.score, first, metric, facts.validation_rows),
        seconds=time.monotonic() - begun,
        was_drawn=recipes.was_drawn,
    )


def _require(choice: Choice | None, first: Trial) -> Choice:
    """Raises: TrainingError: nothing was measured."""
    if choice is None:
        raise TrainingError(
            f"--budget is too short for {FEWEST_STEPS} steps of {DEFAULT}, of {first.step_seconds.mean():.2g} s each, "
            "and this task has no probe; give more time"
        )
    return choice


def _labels(choice: Choice, probed: Probe | None, facts: Evidence) -> tuple[bool, str]:
    """Hold more labels against what the choice of a strategy gains over the next one; see `labels_advice`."""
    rivals = [one.gain.mean for one in choice.candidates if one.strategy != choice.strategy and one.measured]
    curve = None if probed is None else probed.curve(facts.rows)
    return labels_advice(curve, choice.advised.gain.mean - max(rivals, default=0.0))


class _Recipes:
    """Strategy -> its recipe, see `without_test`, and with a validation split drawn from train if there is none."""

    def __init__(self, values: Mapping[str, Any], own: str, file: str) -> None:
        data = without_test(values.get("data") or {})
        self.was_drawn = data.get("validation") is None
        if self.was_drawn:
            data["validation"] = DRAWN
        self.values, self.own, self.file = {**values, "data": data, "baselines": False, "trackers": []}, own, file

    def __getitem__(self, strategy: str) -> Recipe:
        values = with_strategy(self.values, strategy, self.own)
        return recipe_from_dict(values, f"{self.file} with strategy {strategy}")

    def possible(self, strategies: Sequence[str], task: Task) -> list[str]:
        """Leave out what this model cannot have, such as `top_layers` of one block. Raises: NlpFtError: the default."""
        found = []
        for strategy in strategies:
            try:
                build.structure(self[strategy], task, task.data.label_names)
            except NlpFtError as error:
                if strategy == DEFAULT:
                    raise
                say(wrapped(f"look: {strategy} is not possible here and is left out: {error}"))
            else:
                found.append(strategy)
        return found


def _network(task: Task) -> PreTrainedModel:
    """Build the network with the pretrained weights, on the accelerator if there is one."""
    network: Any = task.build_model(task.data.label_names)
    found: PreTrainedModel = network.to(
        torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    )
    return found


def _prior(task: Task, words: Words | None, domain: Domain | None) -> Prior:
    """Look up the table."""
    return table_answer(
        task.data.windows("train").num_rows,
        None if words is None else words.tokens_per_word,
        None if domain is None else domain.distance,
    )


def _candidates(prior: Prior, own: str) -> list[str]:
    """List the candidates in the order in which one wants to know them."""
    names = [DEFAULT, PROBED, prior.strategy, own, *TRIED]
    return [name for name in dict.fromkeys(names) if name not in UNTRIED]


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
        try:
            trials[name] = run_trial(recipes[name], plan.steps, rows)
        except NlpFtError as error:
            if name == DEFAULT:
                raise
            say(wrapped(f"look: {name} cannot be tried and is left out: {error}"))
            continue
        if name == DEFAULT:
            steps_took = float(trials[name].step_seconds.mean())
    return trials, first


def _sample(num_rows: int, most: int) -> np.ndarray:
    """Choose rows that are spread evenly."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, most)).round().astype(np.int64))
