"""Short runs: their steps, their scores, and that they leave nothing behind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.trials import difference, run_trial, score_error
from tests.tiny import tiny_recipe
from tests.tiny_choices import choice_recipe

ROWS = np.arange(0, 21, 2)


def recipe_of(folder: Path, encoder: Path, strategy: str) -> Recipe:
    values = tiny_recipe(folder, encoder, strategy=strategy, data={"test": None}, optimizer={})
    return recipe_from_dict({**values, "optimizer": {}})


def test_a_trial_is_a_short_whole_run_and_writes_nothing(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_encoder, "llrd")
    before = sorted(tmp_path.rglob("*"))
    trial = run_trial(recipe, 5, ROWS)
    assert (trial.steps, trial.full_steps) == (5, 14)
    assert [step for step, _ in trial.points] == [3, 5]
    assert len(trial.step_seconds) == 4
    assert len(trial.parts) == len(ROWS)
    assert trial.parts.sum() == pytest.approx(0)
    assert sorted(tmp_path.rglob("*")) == before
    again = run_trial(recipe, 5, ROWS)
    assert again.points == trial.points
    assert run_trial(recipe, 50, ROWS).steps == 14


def test_the_difference_is_that_of_the_same_rows(tmp_path: Path, tiny_encoder: Path) -> None:
    trial = run_trial(recipe_of(tmp_path, tiny_encoder, "head_only"), 2, ROWS)
    hits, others = np.array([1, 1, 1, 0]), np.array([1, 0, 1, 0])
    one, other = (
        replace(trial, points=[(2, float(values.mean()))], parts=values - values.mean(), least_error=0.125)
        for values in (hits, others)
    )
    # The differences of the rows are 0, 1, 0, 0: mean 1/4, deviation 1/2, standard error 1/4.
    assert difference(one, other, 1) == Estimate(0.25, 0.25)
    assert difference(one, other, -1) == Estimate(-0.25, 0.25)
    # That few rows agree does not mean that all do.
    assert difference(one, one, 1) == Estimate(0.0, 0.125)
    assert trial.least_error == 1 / len(ROWS)
    assert score_error(replace(one, parts=np.zeros(1), least_error=1.0)) == 1.0


def test_the_rows_of_choices_count_as_right_or_wrong(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe = recipe_from_dict(choice_recipe(tmp_path, tiny_encoder))
    trial = run_trial(recipe, 2, np.arange(20))
    assert 0 < trial.score < 1
    hits = trial.parts + trial.score
    assert sorted({*hits.round(9)}) == [0, 1]
    assert hits.mean() == pytest.approx(trial.score)
