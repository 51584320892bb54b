"""The facts of a tiny data set, which are known."""

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from transformers import AutoTokenizer

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.study.advise.domain import Domain
from nlp_ft.study.advise.evidence import gather, lengths_of
from nlp_ft.study.advise.measures import cost_of
from nlp_ft.study.advise.trials import Trial
from nlp_ft.study.advise.words import Words, count_words, texts_of, words_in, words_of
from nlp_ft.tasks.registry import task_of
from tests.tiny import tiny_recipe
from tests.tiny_choices import choice_recipe


def test_words_are_letters_and_digits_of_all_texts() -> None:
    table = pyarrow.table({"row": [0, 1], "text": ["the cat, it's", "a-b"], "words": [["big"], ["dog"]]})
    assert texts_of(table) == [["the cat, it's", "big"], ["a-b", "dog"]]
    assert words_in(["the cat, it's", "a-b"]) == ["the", "cat", "it", "s", "a", "b"]


def test_split_and_unknown_words_are_counted(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    assert count_words(["cat", "dog", "the", "zebra"], tokenizer) == Words(1.0, 0.0, 0.25)
    tokenizer.add_tokens(["z"])
    assert count_words(["cat", "zcat"], tokenizer) == Words(1.5, 0.5, 0.0)


def test_the_facts_of_a_recipe(tmp_path: Path, tiny_encoder: Path) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder)
    recipes = {
        name: recipe_from_dict({**values, "strategy": name, "data": {**values["data"], "test": None}})  # type: ignore[dict-item]
        for name in ("llrd", "head_only", "gradual")
    }
    task = task_of(recipes["llrd"])
    found = gather(task, recipes, words_of(task), Domain(None))
    assert (found.rows, found.validation_rows) == (50, 21)
    assert found.label_counts == {"animal": 17, "colour": 17, "size": 16}
    assert found.smallest == 16
    assert found.imbalance == pytest.approx(17 / 16)
    assert found.trainable["head_only"] == 16 * 3 + 3
    whole = sum(parameter.numel() for parameter in task.build_model(task.data.label_names).parameters())
    assert found.trainable["llrd"] == found.trainable["gradual"] == whole
    assert found.words == Words(1.0, 0.0, 0.0)
    assert found.lengths is not None
    words = [len(line.split(",")[0].split()) for line in (tmp_path / "train.csv").read_text().splitlines()[1:]]
    assert found.lengths.longest == max(words) + 2
    assert found.lengths.cut(max(words) + 1) == np.mean(np.array(words) == max(words))


def test_a_head_alone_costs_its_steps_where_no_features_are_kept(tmp_path: Path, tiny_encoder: Path) -> None:
    trial = Trial(9, 90, [(9, 0.5)], np.zeros(1), 0.0, None, np.full(8, 2.0), 0.1, 0, 1)  # type: ignore[arg-type]
    text, choices = tiny_recipe(tmp_path, tiny_encoder), choice_recipe(tmp_path, tiny_encoder)
    whole = {**text, "training": {**text["training"], "feature_cache": "off"}}  # type: ignore[dict-item]
    for values, is_cached in ((text, True), (whole, False), (choices, False)):
        recipe = recipe_from_dict({**values, "strategy": "head_only"})
        facts = gather(task_of(recipe), {"head_only": recipe}, None, None)
        passes = (facts.rows if is_cached else 0) + facts.validation_rows
        steps = 90 * (0.01 if is_cached else 2.0)
        assert cost_of("head_only", {"head_only": trial}, trial, facts).seconds == pytest.approx(steps + 0.1 * passes)


def test_rows_that_are_read_in_windows_are_counted_once_and_never_cut(tmp_path: Path, tiny_encoder: Path) -> None:
    windows = {"truncation": "windows", "max_length": 6, "stride": 1}
    recipe = recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, data=windows))
    task = task_of(recipe)
    found = lengths_of(task, recipe)
    assert found is not None
    assert len(task.data.encoded["train"]) > 50
    assert (len(found.values), found.max_length) == (50, None)
