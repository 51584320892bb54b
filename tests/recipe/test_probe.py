"""The recipe of strategy probe: what it refuses, and what it says to have no meaning."""

from typing import Any

import pytest

from nlp_ft.errors import RecipeError
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.probe_notes import probe_notes


def a_probe(**changes: Any) -> dict[str, Any]:
    values = {"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "run", "strategy": "probe"}
    return {key: changes.get(key, values.get(key)) for key in {**values, **changes}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "token_classification", "data": {"train": "a", "words": "w", "label": "t"}},
         "strategy probe needs one vector a row, which token_classification does not have; did you mean head_only?"),
        ({"model": {"name": "m", "head": {"type": "bottleneck"}}},
         "model.head.type bottleneck has no place under strategy probe: its head is one linear layer"),
        ({"model": {"name": "m", "pooling": "attention"}},
         "model.pooling attention has no place under strategy probe: use auto, cls, mean, max"),
        ({"model": {"name": "m", "keep_head": True}},
         "model.keep_head has no place under strategy probe: it puts its own solution into the head"),
        ({"data": {"train": "a", "truncation": "windows", "window_pooling": "max"}},
         "data.window_pooling max has no place under strategy probe: the windows of a text are averaged; use mean"),
        ({"training": {"feature_cache": "auto"}},
         "training.feature_cache has no place under strategy probe: features are computed once; leave it out"),
        ({"task": "multi_label_classification", "loss": {"class_weights": "balanced"}},
         "loss.class_weights has no place under strategy probe: leave it out"),
        ({"task": "image_classification", "model": {"name": "resnet18"},
          "strategy": {"name": "probe", "probe": {"layer": 3}}},
         "strategy.probe.layer 3 has no place under strategy probe: images have one layer"),
        ({"strategy": {"name": "probe", "reinit_top": 1}},
         "strategy.reinit_top has no place under probe, which would read the features of random weights"),
        ({"strategy": {"name": "full", "probe": {}}}, "strategy.probe belongs to strategy probe, got it under full"),
        ({"strategy": {"name": "probe", "probe": {"layer": "best"}}},
         "strategy.probe.layer must be 'auto' or 'mean' or a whole number, got 'best'"),
        ({"strategy": {"name": "probe", "probe": {"folds": 1}}},
         "strategy.probe.folds must be in [2, 100], got 1"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused_in_one_line(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(a_probe(**changes))
    assert str(caught.value).removeprefix("recipe: ") == problem


def test_settings_of_steps_are_said_to_have_no_meaning() -> None:
    given = a_probe(optimizer={"lr": 1e-3}, training={"duration": "2ep", "keep": "last"}, loss={"label_smoothing": 0.1})
    [note] = probe_notes(recipe_from_dict(given))
    assert note == (
        "without meaning under strategy probe, which takes no steps: optimizer.lr, loss.label_smoothing, "
        "training.duration, training.keep"
    )


@pytest.mark.parametrize("values", [a_probe(), a_probe(strategy="head_only", optimizer={"lr": 1e-3})])
def test_without_such_settings_and_under_another_strategy_nothing_is_said(values: dict[str, Any]) -> None:
    assert probe_notes(recipe_from_dict(values)) == []
