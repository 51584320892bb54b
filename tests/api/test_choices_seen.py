"""Multiple choice is seen in the columns of files and DataFrames; its draft validates, and `fit` needs no names."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest

import nlp_ft
from nlp_ft.api.choices_seen import seen_choices, seen_first_index
from nlp_ft.api.draft import draft_recipe
from nlp_ft.errors import DataError
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.inspection import find_problems

ENDINGS = ["ending0", "ending1", "ending2"]
SWAG: dict[str, list[Any]] = {
    "video-id": ["v1", "v2", "v3"],
    "fold-ind": [3416, 1, 0],
    "startphrase": ["The cat", "A dog", "A bird"],
    "sent1": ["the cat runs", "a dog eats", "a bird sleeps"],
    "sent2": ["the cat", "a dog", "a bird"],
    "ending0": ["red", "warm", "big"],
    "ending1": ["green", "cold", "small"],
    "ending2": ["blue", "runs", "the big cat sleeps"],
    "label": [0, 1, 2],
}
RIGHT: dict[str, Any] = {"text": ["sent1", "sent2"], "candidates": ENDINGS, "label": "label"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (SWAG, RIGHT),
        ({name: [str(value) for value in values] for name, values in SWAG.items()}, RIGHT),
        (
            {"ctx": ["a", "b"], "endings": [["x", "y"], ["x", "y", "z"]], "label": ["1", "2"]},
            {"text": "ctx", "candidates": "endings", "label": "label"},
        ),
        (
            {"Question": ["a", "b"], "A": ["x", "y"], "B": ["u", "v"], "C": ["m", "n"], "Answer": ["A", "C"]},
            {"text": "Question", "candidates": ["A", "B", "C"], "label": "Answer"},
        ),
        (
            {"premise": ["a", "b"], "choice1": ["x", "y"], "choice2": ["u", "v"], "gold": ["u", "y"]},
            {"text": "premise", "candidates": ["choice1", "choice2"], "label": "gold"},
        ),
        ({"a": ["x", "y"], "b": ["u", "v"], "label": [0, 1]}, {}),
        ({"text": ["x", "y"], "label": ["u", "v"]}, {}),
        ({"sentence1": ["x", "y"], "sentence2": ["u", "v"], "label": [0, 1]}, {}),
        (
            {"question": ["a", "b"], "support": ["c", ""], "distractor2": ["w", "z"], "distractor1": ["x", "y"]}
            | {"correct_answer": ["u", "v"]},
            {
                "text": "question",
                "candidates": ["correct_answer", "distractor1", "distractor2"],
                "label": "correct_answer",
            },
        ),
        (
            {"premise": ["a", "b"], "choice1": ["x", "y"], "choice2": ["u", "v"], "question": ["cause", "effect"]}
            | {"label": [0, 1]},
            {"text": ["premise", "question"], "candidates": ["choice1", "choice2"], "label": "label"},
        ),
        # An answer of a survey is no choice among its options.
        ({"question": ["a", "b"], "option1": ["x", "y"], "option2": ["u", "v"], "label": ["sad", "joy"]}, {}),
        ({"text": ["a", "b"], "options": [1, 2], "label": [0, 1]}, {}),
    ],
)
def test_the_columns_are_seen_by_their_names_and_the_label_by_its_values(
    columns: dict[str, list[Any]], expected: dict[str, Any]
) -> None:
    assert seen_choices(pyarrow.table(columns)) == expected


@pytest.mark.parametrize(
    ("answers", "first"), [([1, 2], 1), (["1", "2"], 1), ([0, 1], 0), (["A", "B"], 0), ([1, 1], 0)]
)
def test_indices_that_count_from_1_are_seen(answers: list[Any], first: int) -> None:
    rows = pyarrow.table({"text": ["a", "b"], "option1": ["x", "y"], "option2": ["u", "v"], "answer": answers})
    assert seen_first_index(rows, seen_choices(rows)) == first


def test_labels_that_may_be_texts_or_indices_from_1_are_refused() -> None:
    columns = {"question": ["a", "b"], "A": ["4", "1"], "B": ["2", "3"], "C": ["1", "2"], "D": ["3", "4"]}
    with pytest.raises(DataError, match="label '1' is the index of candidate 1 and the text of candidate 2"):
        seen_choices(pyarrow.table({**columns, "answer": ["1", "4"]}))
    # A label that is no text of its row tells that they are indices.
    rows = pyarrow.table({**columns, "A": ["5", "1"], "answer": ["4", "4"]})
    assert seen_first_index(rows, seen_choices(rows)) == 1


def test_a_label_beside_a_missing_candidate_is_no_crash() -> None:
    rows = pyarrow.table(
        {"question": ["a"], "option1": ["x"], "option2": pyarrow.array([None], "string"), "label": ["up"]}
    )
    assert seen_choices(rows) == {}


def test_indices_that_count_neither_from_0_nor_from_1_are_an_error_that_says_how_they_count() -> None:
    rows = pyarrow.table({"text": ["a", "b"], "option1": ["x", "y"], "option2": ["u", "v"], "answer": [0, 2]})
    with pytest.raises(
        DataError, match=r"^column 'answer' names one of the candidates \(option1, option2\), but row 1"
    ) as found:
        seen_choices(rows)
    assert str(found.value).endswith("indices count from 0 or from 1, and letters from A")


def test_the_draft_for_right_and_wrong_candidates_validates(tmp_path: Path, tiny_encoder: Path) -> None:
    row = {"question": "how many?", "correct_answer": "1", "distractor1": "0", "distractor2": "2", "support": "one"}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n" * 40)
    text = draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))
    (tmp_path / "recipe.yaml").write_text(text)
    assert find_problems(load_recipe(tmp_path / "recipe.yaml")) == []
    assert "3 candidates a row; the right one is in the column correct_answer" in said(text)


@pytest.mark.parametrize("form", ["init", "fit"])
def test_a_file_whose_indices_count_from_1_trains_on_the_right_ones(
    form: str, tmp_path: Path, tiny_encoder: Path
) -> None:
    rows = [
        {"sentence": f"the cat {row}", "option1": "red", "option2": "blue", "answer": "12"[row % 2]} for row in range(8)
    ]
    file = tmp_path / "winogrande.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if form == "init":
        text = draft_recipe(str(file), str(tiny_encoder))
        (tmp_path / "recipe.yaml").write_text(text)
        recipe = load_recipe(tmp_path / "recipe.yaml")
        assert find_problems(recipe) == []
        assert "indices of the right ones, with their rows in train: 0 (4), 1 (4)" in said(text)
    else:
        settings: dict[str, Any] = {"duration": "1st", "precision": "fp32", "baselines": False, "level": "quiet"}
        run = nlp_ft.fit(file, model=tiny_encoder, output_dir=tmp_path / "run", report=False, **settings)
        recipe = run.recipe
    assert vars(recipe.data)["first_index"] == 1


def said(text: str) -> str:
    """Join the comments of a draft."""
    return " ".join(text.replace("#", " ").split())


def test_the_draft_for_columns_of_candidates_validates(tmp_path: Path, tiny_encoder: Path) -> None:
    file = tmp_path / "swag.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(SWAG)
        writer.writerows(list(zip(*SWAG.values(), strict=True)) * 40)
    text = draft_recipe(str(file), str(tiny_encoder))
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert find_problems(recipe) == []
    data = vars(recipe.data)
    assert (recipe.task, data["text"], data["candidates"]) == ("multiple_choice", ["sent1", "sent2"], ENDINGS)
    # [CLS] a bird sleeps a bird [SEP] the big cat sleeps [SEP]: each word is a token.
    assert "longest 12 tokens" in text
    assert "3 candidates a row; indices of the right ones, with their rows in train: 0 (40), 1 (40), 2 (40)" in said(
        text
    )


def test_the_draft_for_lists_of_candidates_validates(tmp_path: Path, tiny_encoder: Path) -> None:
    choices = [["red", "blue"], ["red", "blue", "warm"]]
    rows = [{"prompt": "the cat", "choices": choices[row % 2], "answer": "red"} for row in range(120)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text = draft_recipe(str(tmp_path / "a.jsonl"), str(tiny_encoder))
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert find_problems(recipe) == []
    assert "task: multiple_choice  # there are columns of candidates (choices)" in text
    assert "2 to 3 candidates a row; indices of the right ones, with their rows in train: 0 (120)" in said(text)


@pytest.mark.parametrize("is_struct", [True, False])
def test_the_draft_for_named_candidates_of_uneven_labels_validates_and_trains(
    tmp_path: Path, tiny_encoder: Path, is_struct: bool
) -> None:
    texts, names = ["red", "blue", "the big cat sleeps"], list("123")
    listed = [{"text": text, "label": name} for text, name in zip(texts, names, strict=True)]
    choices = {"text": texts, "label": names} if is_struct else listed
    rows = [{"question": "the cat", "choices": choices, "answerKey": "1" if row % 5 else "3"} for row in range(120)]
    file = tmp_path / "arc.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text = draft_recipe(str(file), str(tiny_encoder))
    (tmp_path / "recipe.yaml").write_text(text)
    assert find_problems(load_recipe(tmp_path / "recipe.yaml")) == []
    assert "3 candidates a row; indices of the right ones, with their rows in train: 0 (96), 2 (24)" in said(text)
    # [CLS] the cat [SEP] the big cat sleeps [SEP]
    assert "longest 9 tokens" in text
    settings: dict[str, Any] = {"duration": "2st", "precision": "fp32", "baselines": False, "level": "quiet"}
    frame = pandas.DataFrame(rows)
    run = nlp_ft.fit(frame, model=tiny_encoder, output_dir=tmp_path / "run", report=False, **settings)
    assert run.predict(frame[:1])[0].candidate in texts


@pytest.mark.parametrize("form", ["DataFrame", "file"])
def test_fit_sees_choices_where_text_and_label_are_not_named(form: str, tmp_path: Path, tiny_encoder: Path) -> None:
    frame = pandas.DataFrame(SWAG)
    frame.to_csv(tmp_path / "swag.csv", index=False)
    settings: dict[str, Any] = {"duration": "2st", "precision": "fp32", "baselines": False, "level": "quiet"}
    data = frame if form == "DataFrame" else tmp_path / "swag.csv"
    run = nlp_ft.fit(data, model=tiny_encoder, output_dir=tmp_path / "run", report=False, **settings)
    assert run.recipe.task == "multiple_choice"
    assert {key: vars(run.recipe.data)[key] for key in RIGHT} == RIGHT
    assert run.predict(("the cat", ["red", "blue"])).candidate in ("red", "blue")
