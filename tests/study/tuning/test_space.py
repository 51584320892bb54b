"""The space of a search: how it is written, what is searched by default, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.errors import RecipeError
from nlp_ft.study.tuning.space import Choice, Range, default_space, read_space, require_valid, written
from tests.tiny import tiny_recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.lr=1e-5..1e-3", Range(1e-5, 1e-3, True)),
        ("optimizer.head_lr=2e-3..4e-3", Range(2e-3, 4e-3, True)),  # a rate is always logarithmic
        ("optimizer.weight_decay=0.01..0.1", Range(0.01, 0.1, True)),  # a factor of ten
        ("optimizer.layer_decay=0.6..1.0", Range(0.6, 1.0, False)),
        ("model.dropout=0..0.3", Range(0, 0.3, False)),
        ("training.per_device_batch_size=8..64", Range(8, 64, False)),
        ("training.per_device_batch_size=8,16,32", Choice((8, 16, 32))),
        ("training.duration=2ep,3ep", Choice(("2ep", "3ep"))),
        ("strategy=full,llrd", Choice(("full", "llrd"))),
        ("optimizer.head_lr=null,1e-2", Choice((None, 1e-2))),
    ],
)
def test_a_setting_is_searched_in_a_range_or_a_list(text: str, expected: Range | Choice) -> None:
    assert read_space([text]) == {text.partition("=")[0]: expected}


def test_only_a_range_between_whole_numbers_is_of_whole_numbers() -> None:
    assert (Range(8, 64, False).is_whole, Range(0, 0.3, False).is_whole) == (True, False)


def test_a_file_holds_a_space(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("optimizer.lr: 1e-5..1e-3\ntraining.per_device_batch_size: [8, 16]\n")
    space = read_space([str(file), "optimizer.lr=1e-4..2e-4"])  # what comes later holds
    assert space == {
        "optimizer.lr": Range(1e-4, 2e-4, True),
        "training.per_device_batch_size": Choice((8, 16)),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.lr=1e-3..1e-5", r"--space optimizer\.lr=1e-3\.\.1e-5: a range goes from a number to a higher one"),
        ("training.duration=2ep..5ep", r"durations and names are listed, such as training\.duration=2ep,3ep"),
        ("optimizer.lr=1e-4", r"--space optimizer\.lr: must be a range .* or two values or more .*; got \[0\.0001\]"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("nested.yaml", r"--space optimizer: write the keys below it with dots, such as optimizer\.lr"),
    ],
)
def test_what_is_no_range_is_refused(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nested.yaml").write_text("optimizer:\n  lr: 1e-5..1e-3\n")
    with pytest.raises(RecipeError, match=message):
        read_space([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.layer_decay=0.5..1.5", r"--space optimizer.layer_decay=1.5: mine.yaml.*layer_decay"),
        ("data.test=a.csv,b.csv", r"--space data\.test: trials that differ in it do not compare"),
        ("data.train=a.csv,b.csv", r"--space data\.train: trials that differ in it do not compare"),
        ("optimizer.lrr=1e-5..1e-3", r"optimizer\.lrr is not a key of a recipe; did you mean lr\?"),
    ],
)
def test_a_key_or_an_end_that_the_recipe_refuses_is_named_before_any_trial(
    text: str, message: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    recipe: dict[str, Any] = tiny_recipe(tmp_path, tiny_encoder)
    recipe["data"]["validation"] = "10%"
    with pytest.raises(RecipeError, match=message):
        require_valid(read_space([text]), recipe, "mine.yaml")


def test_by_default_the_rates_are_searched_and_layer_decay_where_layers_train() -> None:
    recipe: dict[str, Any] = {
        "optimizer": {"lr": 1e-4, "head_lr": 1e-2},
        "strategy": {"name": "llrd", "trainable_blocks": "all", "unfreeze": None, "probe": None},
    }
    rates = {"optimizer.lr": Range(2e-5, 5e-4, True), "optimizer.head_lr": Range(2e-3, 5e-2, True)}
    assert default_space(recipe) == {**rates, "optimizer.layer_decay": Range(0.6, 1.0, False)}
    assert default_space({**recipe, "strategy": {**recipe["strategy"], "name": "full"}}) == rates
    head_only = {
        "optimizer": {"lr": 1e-2, "head_lr": None},
        "strategy": {"name": "head_only", "trainable_blocks": 0, "unfreeze": None, "probe": None},
    }
    assert default_space(head_only) == {"optimizer.lr": Range(2e-3, 5e-2, True)}
    with pytest.raises(RecipeError, match="strategy probe takes no steps, so it has no rate to search"):
        default_space({**recipe, "strategy": {**recipe["strategy"], "probe": {"layer": "best"}}})


RANGE = Range(0, 1, False)


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        (RANGE, 1.23456e-5, "1.23e-05"),
        (RANGE, 0.8, "0.8"),
        (RANGE, 1234, "1234"),
        (Choice((0.9995, 1.0)), 0.9995, "0.9995"),  # as it was asked for
        (Choice((True, None)), True, "true"),
        (Choice((True, None)), None, "null"),
    ],
)
def test_a_value_is_written_as_in_an_override(where: Range | Choice, value: object, expected: str) -> None:
    assert written(where, value) == expected
