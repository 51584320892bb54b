"""The settings that a recipe leaves out, derived from the rows of train and the width of the encoder."""

from typing import Any

import pytest

from nlp_ft.durations import Duration
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import (
    DERIVED_KEYS,
    Derived,
    derive_batch,
    derive_lengths,
    derive_rates,
    derive_threshold,
    filled,
)
from nlp_ft.recipe.loader import recipe_from_dict
from tests.recipe.test_recipe import a_recipe

MINILM, BERT_BASE = 384, 768


def rates(hidden_size: int | None = MINILM, head_ratio: int = 100, **sections: Any) -> dict[str, Any]:
    derived = derive_rates(recipe_from_dict(a_recipe(**sections)), hidden_size, head_ratio)
    return {one.key.partition(".")[2]: one.value for one in derived}


def lengths(steps_per_epoch: int, **sections: Any) -> dict[str, str]:
    derived = derive_lengths(recipe_from_dict(a_recipe(**sections)), steps_per_epoch)
    return {one.key.partition(".")[2]: str(one.value) for one in derived}


@pytest.mark.parametrize(
    ("hidden_size", "lr", "head_lr"),
    [
        (64, 3e-4, 3e-2),
        (256, 1.5e-4, 1.5e-2),
        (384, 1e-4, 1e-2),
        (768, 5e-5, 5e-3),
        (1024, 3.8e-5, 3.8e-3),
        (5120, 1e-5, 1e-3),
        (None, 1e-4, 1e-3),
    ],
)
def test_the_rate_falls_with_the_width_and_a_new_linear_head_has_a_hundred_times_as_much(
    hidden_size: int | None, lr: float, head_lr: float
) -> None:
    assert rates(hidden_size) == {"lr": lr, "head_lr": head_lr}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"strategy": "full"}, {"lr": 1e-4, "head_lr": 1e-2}),
        ({"strategy": "gradual"}, {"lr": 1e-4, "head_lr": 1e-2}),
        ({"strategy": "head_only"}, {"lr": 1e-2}),
        ({"strategy": "lora"}, {"lr": 1e-3, "head_lr": 1e-2}),
        ({"strategy": "lora", "optimizer": {"lr": 5e-4}}, {"head_lr": 5e-3}),
        ({"strategy": {"name": "top_layers", "trainable_blocks": 0}}, {"lr": 1e-2}),
        ({"strategy": "scratch"}, {"lr": 5e-4}),
        ({"strategy": "discriminative"}, {}),
        ({"strategy": "ulmfit"}, {"lr": 1e-4}),
        ({"optimizer": {"lr": 3e-5}}, {"head_lr": 3e-3}),
        ({"optimizer": {"head_lr": 1e-3}}, {"lr": 1e-4}),
        ({"optimizer": {"name": "lion"}}, {"lr": 2e-5, "head_lr": 2e-3}),
        ({"strategy": "head_only", "optimizer": {"lr": 3e-3}}, {}),
    ],
)
def test_what_is_given_stays_and_the_strategy_decides_on_the_rest(
    sections: dict[str, Any], expected: dict[str, float]
) -> None:
    assert rates(**sections) == expected


def test_a_head_of_several_layers_has_ten_times_the_base_rate() -> None:
    assert rates(BERT_BASE, 10) == {"lr": 5e-5, "head_lr": 5e-4}
    assert rates(BERT_BASE, 10, strategy="head_only") == {"lr": 5e-4}


def test_the_reason_of_tags_is_that_each_word_trains_the_head_unless_the_head_trains_alone() -> None:
    sections = {"task": "token_classification", "data": {"train": "a.jsonl"}}
    [_, derived] = derive_rates(recipe_from_dict(a_recipe(**sections)), MINILM, 10)
    assert (derived.value, derived.reason) == (1e-3, "10 x optimizer.lr: each word of a text trains the head")
    [derived] = derive_rates(recipe_from_dict(a_recipe(**sections, strategy="head_only")), MINILM, 100)
    assert (derived.value, derived.reason.rpartition(": ")[2]) == (1e-2, "the head is one new linear layer")


@pytest.mark.parametrize(
    ("hidden_size", "reasons"),
    [
        (
            64,
            [
                "encoder of width 64: 5e-05 x 768 / 64, but at most 0.0003",
                "100 x optimizer.lr: the head is one new linear layer",
            ],
        ),
        (None, ["image network with pretrained weights", "10 x optimizer.lr: the head of an image network is new"]),
    ],
)
def test_the_reason_says_what_was_computed(hidden_size: int | None, reasons: list[str]) -> None:
    derived = derive_rates(recipe_from_dict(a_recipe()), hidden_size, 100)
    assert [one.reason for one in derived] == reasons


def test_an_image_network_without_weights_has_the_rates_of_random_weights() -> None:
    values = {"task": "image_classification", "data": {"train": "a"}, "model": {"name": "resnet18", "weights": None}}
    [derived] = derive_rates(recipe_from_dict({**values, "output_dir": "runs/a"}), None, 100)
    assert (derived.key, derived.value) == ("optimizer.lr", 5e-4)
    assert derived.reason == "image network with random weights"


def test_a_kept_head_is_not_new_so_it_has_the_rate_of_the_top_block() -> None:
    kept = {"name": "m", "keep_head": True}
    assert rates(BERT_BASE, model=kept) == {"lr": 5e-5}
    assert rates(BERT_BASE, model=kept, strategy="head_only") == {"lr": 5e-5}


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (20_000, 16), (20_001, 32)])
def test_the_batch_has_16_rows_and_32_of_more_than_20000(rows: int, size: int) -> None:
    [derived] = derive_batch(recipe_from_dict(a_recipe()), rows)
    assert (derived.key, derived.value) == ("training.per_device_batch_size", size)


@pytest.mark.parametrize("given", [{"per_device_batch_size": 8}, {"max_tokens_per_batch": 1000}])
def test_a_given_batch_size_or_number_of_tokens_stays(given: dict[str, int]) -> None:
    assert derive_batch(recipe_from_dict(a_recipe(training=given)), 100) == []


@pytest.mark.parametrize(
    ("steps_per_epoch", "duration", "evaluate", "checkpoint"),
    [
        (1, "50ep", "5st", "17st"),
        (6, "50ep", "30st", "100st"),
        (7, "300st", "30st", "100st"),
        (34, "300st", "1ep", "100st"),
        (99, "300st", "1ep", "100st"),
        (100, "3ep", "1ep", "1ep"),
        (5000, "3ep", "1ep", "1ep"),
    ],
)
def test_a_small_set_is_trained_for_300_steps_or_50_epochs_evaluated_ten_times_and_saved_three_times(
    steps_per_epoch: int, duration: str, evaluate: str, checkpoint: str
) -> None:
    assert lengths(steps_per_epoch) == {
        "duration": duration,
        "evaluate_every": evaluate,
        "checkpoint_every": checkpoint,
    }


def test_where_a_phase_waits_for_a_plateau_each_epoch_is_evaluated() -> None:
    strategy = {"name": "gradual", "unfreeze": {"plateau": {"patience": 1}}}
    data = {"train": "a.csv", "validation": "b.csv"}
    assert lengths(5, strategy=strategy, data=data)["evaluate_every"] == "1ep"


def test_filled_puts_the_derived_settings_into_the_recipe_and_then_nothing_is_left_to_derive() -> None:
    def derive(recipe: Recipe) -> list[Derived]:
        first = [*derive_rates(recipe, MINILM, 100), *derive_batch(recipe, 100)]
        return [*first, *derive_lengths(recipe, 7), *derive_threshold(recipe)]

    recipe = recipe_from_dict(a_recipe(task="multi_label_classification"))
    derived = derive(recipe)
    assert [one.key for one in derived] == list(DERIVED_KEYS)
    whole = filled(recipe, derived)
    assert (whole.optimizer.lr, whole.training.duration) == (1e-4, Duration(300, "st"))
    assert derive(whole) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"train": "a.csv", "validation": "b.csv"}}, ["tuned"]),
        ({"data": {"train": "a.csv"}}, [0.5]),
        ({"training": {"threshold": 0.3}}, []),
        ({"task": "text_classification"}, []),
    ],
)
def test_one_threshold_is_tuned_for_several_labels_where_there_is_validation(
    sections: dict[str, Any], expected: list[Any]
) -> None:
    recipe = recipe_from_dict(a_recipe(**{"task": "multi_label_classification", **sections}))
    assert [one.value for one in derive_threshold(recipe)] == expected
