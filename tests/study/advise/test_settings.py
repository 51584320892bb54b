"""The settings that come with advice, and the recipe that holds them."""

from pathlib import Path

import numpy as np
import pytest

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.study.advise.evidence import Lengths
from nlp_ft.study.advise.settings import Setting, advised_recipe, advised_values, length_settings


def lengths(values: list[int], max_length: int | None, limit: int | None = 512) -> Lengths:
    numbers = np.array(values)
    p95, p99 = (int(np.percentile(numbers, share)) for share in (95, 99))
    return Lengths(int(np.median(numbers)), p95, p99, int(numbers.max()), max_length, limit, numbers)


def test_a_length_that_cuts_nothing_stays() -> None:
    assert length_settings(lengths([10, 20, 52], 128), True) == [
        Setting("data.max_length", 128, "the longest text has 52 tokens, so nothing is cut; padding goes by batch")
    ]


def test_a_length_that_cuts_hardly_any_text_stays() -> None:
    assert length_settings(lengths([10] * 99 + [200], 128), True) == [
        Setting("data.max_length", 128, "1.0% of the texts are longer and cut")
    ]


def test_a_length_that_cuts_many_texts_grows_to_99_percent_of_them() -> None:
    assert length_settings(lengths([100] * 90 + [201] * 10, 128), True) == [
        Setting("data.max_length", 208, "99 % of the texts have at most 201 tokens; at 128, 10.0% would be cut")
    ]


@pytest.mark.parametrize(("takes_head_tail", "keys"), [(True, ["data.max_length", "data.truncation"]), (False, None)])
def test_texts_longer_than_the_model_reads_keep_their_beginning_and_end(
    takes_head_tail: bool, keys: list[str] | None
) -> None:
    found = length_settings(lengths([100] * 50 + [900] * 50, 128), takes_head_tail)
    assert [one.key for one in found] == (keys or ["data.max_length"])
    assert found[0] == Setting("data.max_length", 512, "the most that the model reads; 50.0% of the texts are longer")


def test_without_lengths_there_is_no_setting() -> None:
    assert length_settings(None, True) == []
    assert length_settings(lengths([10], None), True) == []


def test_what_a_recipe_says_stays_but_the_rates_of_another_strategy_go() -> None:
    values = {"strategy": "full", "optimizer": {"lr": 1e-3, "weight_decay": 0.1}, "training": {"duration": "2ep"}}
    found = [
        Setting("strategy", "llrd", ""),
        Setting("optimizer.lr", 1e-4, ""),
        Setting("training.duration", "3ep", ""),
    ]
    assert advised_values(values, "llrd", "full", found) == {
        "strategy": "llrd",
        "optimizer": {"lr": 1e-4, "weight_decay": 0.1},
        "training": {"duration": "2ep"},
    }
    assert advised_values(values, "full", "full", found)["optimizer"]["lr"] == 1e-3


def test_the_written_recipe_is_a_recipe_below_comments(tmp_path: Path) -> None:
    values = {"data": {"train": "a.csv"}, "model": {"name": "m"}, "output_dir": "run"}
    settings = [Setting("optimizer.lr", 1e-4, "why"), Setting("data.max_length", 64, "why")]
    text = advised_recipe(values, "head_only", "llrd", settings, ["advised by: nlp-ft advise a.yaml", "a: b # c"])
    assert text.startswith("# advised by: nlp-ft advise a.yaml\n# a: b # c\n")
    file = tmp_path / "advised.yaml"
    file.write_text(text)
    recipe = load_recipe(file)
    assert (recipe.strategy.name, recipe.optimizer.lr, recipe.data.max_length) == ("head_only", 1e-4, 64)  # type: ignore[attr-defined]


def test_what_counts_as_a_layer_belongs_to_no_strategy() -> None:
    values = {"strategy": {"name": "full", "grain": "stage", "reinit_top": 1}}
    assert advised_values(values, "llrd", "full", [])["strategy"] == {"name": "llrd", "grain": "stage"}
