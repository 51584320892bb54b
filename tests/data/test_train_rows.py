"""Rows of train that `data.train_rows` draws: so many of each class, by the seed, after the validation share."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

import nlp_ft
from nlp_ft.data.columns import row_numbers
from nlp_ft.data.splits import draw_rows
from nlp_ft.errors import DataError, RecipeError, RunFolderError
from nlp_ft.recipe.loader import recipe_from_dict, recipe_to_dict
from nlp_ft.recipe.text import TextDataSection
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.same_recipe import refuse_other_recipe
from tests.tasks.test_text_regression import numbers_recipe
from tests.tiny import tiny_recipe, write_tiny_csv
from tests.tiny_choices import choice_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_label_sets import label_set_recipe
from tests.tiny_questions import question_recipe
from tests.tiny_words import words_recipe

RECIPES: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], int]] = {
    "text_classification": (tiny_recipe, 50),
    "multi_label_classification": (label_set_recipe, 50),
    "text_regression": (numbers_recipe, 60),
    "token_classification": (words_recipe, 200),
    "question_answering": (question_recipe, 60),
    "multiple_choice": (choice_recipe, 60),
    "image_classification": (lambda folder, encoder: tiny_image_recipe(folder), 30),
}
"""Task -> its tiny recipe, and the rows of train in its file."""


def rows_of(**counts: int) -> Dataset:
    """Rows of each class, one class after the other."""
    labels = [name for name, count in counts.items() for _ in range(count)]
    return Dataset.from_dict({"label": labels, "row": range(len(labels))})


def drawn(rows: Dataset, train_rows: int | str, seed: int = 0, column: str | None = "label") -> Dataset:
    data = TextDataSection(train="a.csv", train_rows=train_rows)
    return draw_rows({"train": rows, "test": rows}, column, ["row"], data, seed)["train"]


@pytest.mark.parametrize(
    ("train_rows", "expected"),
    [
        (10, {"a": 6, "b": 3, "c": 1}),
        (100, {"a": 60, "b": 30, "c": 10}),
        (1, {"a": 1, "b": 0, "c": 0}),
        ("4/class", {"a": 4, "b": 4, "c": 4}),
        ("10/class", {"a": 10, "b": 10, "c": 10}),
    ],
)
def test_each_class_has_its_share_or_so_many_rows(train_rows: int | str, expected: dict[str, int]) -> None:
    counts = Counter(drawn(rows_of(a=60, b=30, c=10), train_rows)["label"])
    assert {name: counts[name] for name in expected} == expected


def test_chance_gives_the_last_row_to_one_of_two_classes_with_the_same_remainder() -> None:
    # Of 5 rows, the shares are 3, 1.5 and 0.5.
    rows = rows_of(a=60, b=30, c=10)
    assert {"".join(drawn(rows, 5, seed)["label"]) for seed in range(20)} == {"aaabb", "aaabc"}


def test_the_seed_draws_the_rows_which_keep_their_order_and_numbers() -> None:
    rows = Dataset.from_dict({"label": ["a", "b"] * 50})
    numbers = {seed: row_numbers(drawn(rows, 20, seed)) for seed in range(200)}
    assert all((np.diff(of) > 0).all() for of in numbers.values())
    np.testing.assert_array_equal(numbers[3], row_numbers(drawn(rows, 20, 3)))
    assert len({tuple(of) for of in numbers.values()}) == 200
    # Each row is drawn by a fifth of the seeds: 40 of 200, with a deviation of 5.7.
    seeds_of_row = np.bincount(np.concatenate(list(numbers.values())), minlength=100)
    assert seeds_of_row.sum() == 200 * 20
    assert abs(seeds_of_row - 40).max() < 5 * 5.7
    without_classes = row_numbers(drawn(rows, 20, 3, column=None))
    assert len(set(without_classes)) == 20


def test_more_rows_of_a_class_hold_those_of_fewer() -> None:
    rows = rows_of(a=60, b=30, c=10)
    few, more = (set(row_numbers(drawn(rows, size))) for size in ("3/class", "8/class"))
    assert few < more


def test_the_validation_share_is_drawn_first_and_is_the_same_for_each_seed() -> None:
    rows = rows_of(a=60, b=30, c=10)
    data = TextDataSection(train="a.csv", validation="20%", train_rows="5/class")
    whole = draw_rows({"train": rows}, "label", ["row"], data.model_copy(update={"train_rows": None}), 0)
    for seed in (0, 1):
        splits = draw_rows({"train": rows}, "label", ["row"], data, seed)
        np.testing.assert_array_equal(row_numbers(splits["validation"]), row_numbers(whole["validation"]))
        assert set(row_numbers(splits["train"])) < set(row_numbers(whole["train"]))


@pytest.mark.parametrize(
    ("train_rows", "message"),
    [
        (101, "data.train_rows: train has 100 rows to draw from, got 101; lower it"),
        (
            "11/class",
            "data.train_rows: 11/class cannot be drawn; train has fewer rows of 'c' (10); lower it, or add rows of "
            "these classes",
        ),
    ],
)
def test_more_rows_than_there_are_is_refused(train_rows: int | str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        drawn(rows_of(a=60, b=30, c=10), train_rows)
    assert str(caught.value) == message


def test_a_class_that_has_an_id_is_named_in_the_message() -> None:
    rows = Dataset.from_dict({"label": [0, 0, 1]}, Features(label=ClassLabel(names=["good", "bad"])))
    with pytest.raises(DataError, match=r"fewer rows of 'bad' \(1\)"):
        drawn(rows, "2/class")
    with pytest.raises(DataError, match=r"fewer rows of 7 \(1\)"):
        drawn(Dataset.from_dict({"label": [1, 1, 7]}, Features(label=Value("int64"))), "2/class")


@pytest.mark.parametrize(
    "value", [0, -1, True, 1.5, 10**9, "0/class", "10 per class", "10/classes", "5%", "", [1], "\u0661/class"]
)
def test_other_values_are_refused_in_one_line(value: object, tmp_path: Path, tiny_encoder: Path) -> None:
    expected = "recipe: data.train_rows must be a number of rows such as 1000, or of each class such as 10/class, got "
    with pytest.raises(RecipeError) as caught:
        recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder, data={"train_rows": value}))
    assert str(caught.value).startswith(expected)


def test_validation_is_tokenized_once_for_all_draws(tmp_path: Path, tiny_encoder: Path) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder)
    recipes = [{**values, "data": {**values["data"], "train_rows": n}, "seed": n} for n in (9, 12)]  # type: ignore[dict-item]
    first, second = (task_of(recipe_from_dict(recipe)).data.encoded for recipe in recipes)
    assert first["validation"].cache_files == second["validation"].cache_files != []
    assert first["train"].cache_files != second["train"].cache_files


@pytest.mark.parametrize("task", RECIPES)
def test_every_task_draws_rows_by_its_seed_alone(task: str, tmp_path: Path, tiny_encoder: Path) -> None:
    make, num_rows = RECIPES[task]
    values = make(tmp_path, tiny_encoder)
    values["data"] = {**values["data"], "train_rows": 9}
    tasks = [task_of(recipe_from_dict({**values, "seed": seed})) for seed in (0, 0, 1)]
    assert [of.num_rows() for of in tasks] == [9, 9, 9]
    counts = [of.label_counts() for of in tasks]
    numbers = [of.data.inputs("train", np.arange(9))["row"].to_pylist() for of in tasks]
    assert numbers[0] == numbers[1] != numbers[2]
    assert [of.label_counts() for of in tasks] == counts
    assert max(*numbers[0], *numbers[2]) < num_rows
    assert max(*numbers[0], *numbers[2]) > 9
    found = [of.identity() for of in tasks]
    assert found[0] == found[1]
    assert {key for key in found[0] if found[0][key] != found[2][key] and "train" not in key} == set()
    assert {key for key in found[0] if found[0][key] != found[2][key]} != set()
    assert tasks[0].describe_data()["train"]["rows"] == 9
    has_classes = task in ("text_classification", "image_classification")
    values["data"]["train_rows"] = "3/class"
    if has_classes:
        assert task_of(recipe_from_dict(values)).label_counts() == dict.fromkeys(tasks[0].label_names(), 3)
    else:
        with pytest.raises(RecipeError, match=f"data.train_rows 3/class is for rows of one class each, which {task}"):
            recipe_from_dict(values)


def test_fit_takes_it_the_run_scores_its_own_rows_and_another_number_is_not_resumed(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    run = nlp_ft.fit(
        write_tiny_csv(tmp_path / "rows.csv", 60), model=tiny_encoder, train_rows="4/class", seed=3,
        output_dir=tmp_path / "run", duration="2st", precision="fp32", baselines=False, level="quiet",
    )  # fmt: skip
    data = task_of(run.recipe).data
    assert np.bincount(data.labels("train")).tolist() == [4, 4, 4]
    scored = nlp_ft.evaluate_run(run.folder, split="train")
    assert scored.inputs(np.arange(12)) == data.inputs("train", np.arange(12))
    other = recipe_to_dict(run.recipe)
    other["data"]["train_rows"] = 12
    with pytest.raises(RunFolderError, match=r"another recipe; different: data\.train_rows: 4/class then, 12 now"):
        refuse_other_recipe(run.folder, other)
