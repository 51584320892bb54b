"""`nlp-ft init`: the recipe that it drafts for a file validates, and what it cannot draft it says."""

import csv
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.api.draft import draft_recipe
from nlp_ft.cli import main
from nlp_ft.errors import DataError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.inspection import find_problems
from tests.tiny import LABELS, WORDS

TEXTS = [" ".join(WORDS[row % len(WORDS)] for row in range(row, row + 3 + row % 5)) for row in range(120)]


def write(file: Path, columns: dict[str, list[Any]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def drafted(folder: Path, columns: dict[str, list[Any]], encoder: Path) -> tuple[Recipe, str]:
    text = draft_recipe(str(write(folder / "my.csv", columns)), str(encoder))
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml"), text


def test_a_file_of_texts_and_labels(tmp_path: Path, tiny_encoder: Path) -> None:
    labels = [LABELS[row % 3] for row in range(120)]
    recipe, text = drafted(tmp_path, {"id": list(range(120)), "message": TEXTS, "category": labels}, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, recipe.data.label, recipe.data.validation) == ("text_classification", "category", "10%")
    assert vars(recipe.data)["text"] == "message"
    # The longest text has seven words and two special tokens; the least length of a draft is 16.
    assert "# median 7, 99 % at most 9, longest 9 tokens\n  max_length: 16  # cuts 0.0% of the texts" in text
    assert "# 3 labels, with their rows in train: animal (40), colour (40), size (40)" in text
    assert "metric: accuracy  # the labels have similar numbers of rows" in text


def test_splits_in_a_column_pairs_by_their_names_and_fractions_to_learn(tmp_path: Path, tiny_encoder: Path) -> None:
    splits = ["train"] * 100 + ["dev"] * 10 + ["test"] * 10
    columns: dict[str, list[Any]] = {
        "fold": splits,
        "sentence1": TEXTS,
        "sentence2": TEXTS[::-1],
        "score": [row / 119 for row in range(120)],
    }
    recipe, text = drafted(tmp_path, columns, tiny_encoder)
    assert find_problems(recipe) == []
    data = vars(recipe.data)
    assert (recipe.task, data["text"], data["split_column"]) == ("text_regression", ["sentence1", "sentence2"], "fold")
    assert (data["train"], data["validation"], data["test"]) == ("train", "dev", "test")
    assert "120 rows, 100 of them train" in text.splitlines()[0]


def test_uneven_labels_and_few_rows_are_seen(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe, text = drafted(tmp_path, {"text": TEXTS[:40], "y": [0] * 30 + [1] * 10}, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.training.metric, recipe.data.validation) == ("macro_f1", None)
    assert "# validation: none, as train has fewer than 100 rows" in text
    assert "label: 'y'  # the column with the fewest different values, 2" in text


def test_without_a_tokenizer_words_are_counted_and_that_is_said(tmp_path: Path) -> None:
    text = draft_recipe(str(write(tmp_path / "a.csv", {"text": TEXTS, "label": ["x", "y"] * 60})), "./absent")
    assert "tokens, counted as 1.5 a word," in text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "b": [3, 4]}, r"has no column of texts; its columns are: a \(string\), b \(string\)"),
        ({"text": ["one", "two"]}, "has no column for the label: beside the text it has: none"),
        ({"text": ["one", "two"], "label": ["x", "x"]}, "has no column for the label: beside the text it has: label"),
    ],
)
def test_what_cannot_be_drafted_says_what_is_missing(
    columns: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        draft_recipe(str(write(tmp_path / "a.csv", columns)), "m")


def test_images_and_lists_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 2, "b": 3}\n')
    with pytest.raises(DataError, match=r"has no column of texts; its columns are: a \(int64\), b \(int64\)\. A draft"):
        draft_recipe(str(tmp_path / "a.jsonl"), "m")


def test_the_command_writes_the_recipe_once(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.csv", {"text": TEXTS, "label": ["x", "y"] * 60})
    command = ["init", "--data", "my.csv", "--model", str(tiny_encoder)]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    out = capsys.readouterr().out
    assert out.endswith("\nrecipe: recipe.yaml\nnext: nlp-ft validate recipe.yaml\n")
    assert out.startswith(Path("recipe.yaml").read_text())
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert capsys.readouterr().err.startswith(
        "error: --output: recipe.yaml exists; choose another, or pass --overwrite"
    )
