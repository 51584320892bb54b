"""Keywords of `fit`: each finds its key of the recipe, or one error says what was meant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlp_ft.api.settings import settings_from
from nlp_ft.errors import RecipeError
from nlp_ft.recipe import RECIPES
from nlp_ft.recipe.loader import recipe_from_dict

TEXTS = RECIPES["text_classification"]


@pytest.mark.parametrize(
    ("keywords", "values"),
    [
        ({"lr": 1e-4, "layer_decay": 0.8}, {"optimizer": {"lr": 1e-4, "layer_decay": 0.8}}),
        ({"duration": "3ep", "seed": 1}, {"training": {"duration": "3ep"}, "seed": 1}),
        ({"strategy": "gradual", "every": "1ep"}, {"strategy": {"name": "gradual", "unfreeze": {"every": "1ep"}}}),
        ({"optimizer": {"lr": 1e-4}, "head_lr": 1e-3}, {"optimizer": {"lr": 1e-4, "head_lr": 1e-3}}),
        ({"optimizer.lr": 1e-4}, {"optimizer": {"lr": 1e-4}}),
        ({"optimizer": "lion", "model": Path("m")}, {"optimizer": {"name": "lion"}, "model": {"name": "m"}}),
        ({"max_length": np.int64(64)}, {"data": {"max_length": 64}}),
        ({"early_stopping": {"patience": 2}}, {"training": {"early_stopping": {"patience": 2}}}),
        # `metric` is also a key of the optional section plateau; that of every run is meant.
        ({"metric": "macro_f1"}, {"training": {"metric": "macro_f1"}}),
    ],
)
def test_a_keyword_finds_its_key(keywords: dict[str, Any], values: dict[str, Any]) -> None:
    assert settings_from(keywords, TEXTS) == values


@pytest.mark.parametrize(
    ("keywords", "problems"),
    [
        ({"layer_deacy": 1}, ["layer_deacy is no setting; did you mean layer_decay?"]),
        ({"learning_rate": 1}, ["learning_rate is no setting; did you mean lr?"]),
        ({"epochs": 3}, ['epochs is no setting; did you mean duration="3ep"?']),
        ({"optimizer.lrr": 1}, ["optimizer.lrr is no setting; did you mean optimizer.lr?"]),
        ({"zzz\x1b": 1}, ["zzz\\x1b is no setting"]),
        ({"dropout": 0.1}, ['dropout may mean model.dropout or model.head.dropout; write **{"model.dropout": ...}']),
        (
            {"lr": 1, "optimizer": {"lr": 2}, "epochs": 1},
            [
                "optimizer sets optimizer.lr, which another keyword sets too; give one",
                'epochs is no setting; did you mean duration="3ep"?',
            ],
        ),
    ],
)
def test_every_keyword_that_finds_none_is_named_in_one_error(keywords: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        settings_from(keywords, TEXTS)
    assert str(caught.value).splitlines() == [f"fit: {problem}" for problem in problems]


@pytest.mark.parametrize(
    ("task", "hint"),
    [
        ("text_clasification", "; did you mean text_classification?"),
        ("ner", "; did you mean token_classification?"),
        ("sentiment-analysis", "; did you mean text_classification?"),
        ("text_generation", "; nlp_ft does not learn writing text, and no other task takes its place"),
        ("summarization", "; nlp_ft does not learn writing text, and no other task takes its place"),
        ("object-detection", "; nlp_ft does not learn boxes in images, and no other task takes its place"),
        ("clustering", ""),
    ],
)
def test_a_task_that_there_is_not_gets_no_misleading_suggestion(task: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict({"task": task, "data": {"train": "a"}, "model": {"name": "m"}, "output_dir": "o"})
    [line] = str(caught.value).splitlines()
    assert line.partition(f", got {task!r}")[2] == hint


@pytest.mark.parametrize("task", RECIPES)
def test_every_keyword_with_one_meaning_sets_the_key_of_its_name(task: str) -> None:
    """`name`, `revision`, `dropout` and settings of triggers mean several keys."""
    refused = set()
    for keyword in {"lr", "metric", "head_tokens", "name", "dropout", "keep_head", "bottleneck_size", "image_size"}:
        try:
            settings_from({keyword: 1}, RECIPES[task])
        except RecipeError:
            refused.add(keyword)
    expected = {
        "image_classification": {"head_tokens", "name", "keep_head"},
        "token_classification": {"head_tokens", "name", "dropout", "image_size"},
        "question_answering": {"head_tokens", "name", "dropout", "image_size"},
        "multiple_choice": {"head_tokens", "name", "dropout", "image_size"},
    }.get(task, {"name", "dropout", "image_size"})
    assert refused == expected
