"""`nlp-ft init`: the recipe that it drafts for a file validates, and what it cannot draft it says."""

import csv
import json
from collections import Counter
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
from tests.tiny_questions import tiny_questions
from tests.tiny_words import tagged_rows, write_rows

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
        (
            {"index": list(range(30)), "sentence": TEXTS[:30]},
            r"beside the text it has: index \(index: another value in nearly each row; .*\); each row needs a text and",
        ),
        ({"text": ["one", "two"], "label": ["x", "x"]}, r"it has: label \(label: the same value in all rows\);"),
        ({"text;label": ["one;x", "two;y"]}, "the fields look divided by semicolons: write it anew in"),
    ],
)
def test_what_cannot_be_drafted_says_what_is_missing(
    columns: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        draft_recipe(str(write(tmp_path / "a.csv", columns)), "m")


def test_prices_that_all_differ_are_learned_and_ids_are_not(tmp_path: Path, tiny_encoder: Path) -> None:
    prices = [(row * 7919 + 13) % 1009 for row in range(30)]
    assert len(set(prices)) == 30
    for others in ({}, {"id": list(range(30))}, {"tweet_id": prices[::-1]}, {"row": [f"r{row}" for row in range(30)]}):
        recipe, _ = drafted(tmp_path, {**others, "text": TEXTS[:30], "paid": prices}, tiny_encoder)
        assert (recipe.task, recipe.data.label) == ("text_regression", "paid")
    for name, values in (("tweet_id", prices), ("place", sorted(prices))):
        with pytest.raises(DataError, match=f"{name}: another value in nearly each row; call it label if it is one"):
            draft_recipe(str(write(tmp_path / "a.csv", {"text": TEXTS[:30], name: values})), "m")


def test_candidates_without_a_prompt_say_which_column_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.text is 'text', but the columns are: candidates, label"):
        draft_recipe(str(write_rows(tmp_path / "a.jsonl", [{"candidates": ["a", "b"], "label": 1}])), "m")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a"], "ner_tags": 0.5}, "no column of texts"),
        (
            {"text": ["a"], "label": 0.5},
            "column 'label' must hold a list of tags in each row, one for each word; it holds",
        ),
        ({"question": "q", "context": {"a": 1}, "answers": []}, "column 'context' must hold texts; it holds struct"),
        ({"text": 1, "spans": [{"start": 0, "end": 1, "label": "x"}]}, "column 'text' must hold texts; it holds int64"),
    ],
)
def test_columns_of_another_kind_than_their_names_say_are_refused(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        draft_recipe(str(write_rows(tmp_path / "a.jsonl", [row] * 2)), "m")


def test_a_file_without_a_header_is_not_drafted(tmp_path: Path) -> None:
    for text in ("Fears for pension after talks", "Ok lar."):
        rows = {"3": ["1", "2", "3"] * 4, text: TEXTS[:12]}
        with pytest.raises(DataError, match=f"has the columns 3, {text}, which look like a row; if its"):
            draft_recipe(str(write(tmp_path / "my.csv", rows)))


def test_texts_of_several_labels_are_parted_and_columns_left_out_are_named(tmp_path: Path, tiny_encoder: Path) -> None:
    labels = ["animal", "size", "animal,size", "colour", "colour,animal"] * 24
    columns: dict[str, list[Any]] = {"text": TEXTS, "labels": labels, "id": list(range(120))}
    recipe, text = drafted(tmp_path, columns, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, vars(recipe.data)["label_separator"]) == ("multi_label_classification", ",")
    assert "several labels, such as 'animal,size'; parted at ',' they are 3 labels" in text
    assert "# other columns: id\n" in text
    assert "# 3 labels, with their rows in train: animal (72), size (48), colour (48)" in text
    assert "# 1.40 labels a row, 0 rows without a label" in text


def test_names_and_numbers_with_a_comma_are_one_label_each(tmp_path: Path, tiny_encoder: Path) -> None:
    kinds = [f"{colour}, {size}" for colour in ("red", "blue", "green", "grey") for size in ("big", "small", "tiny")]
    for labels in (["food, drink", "travel, hotels", "food, travel"], kinds, ["1", "2", "5", "1,5", "2,5"]):
        recipe, _ = drafted(tmp_path, {"text": TEXTS, "label": labels * (120 // len(labels))}, tiny_encoder)
        assert recipe.task == "text_classification"


def test_the_pairs_of_mrpc_and_sick_are_known_by_their_names(tmp_path: Path, tiny_encoder: Path) -> None:
    for pair in (["#1 String", "#2 String"], ["sentence_A", "sentence_B"]):
        columns: dict[str, list[Any]] = {pair[0]: TEXTS, pair[1]: TEXTS[::-1], "Quality": [0, 1] * 60}
        recipe, _ = drafted(tmp_path, columns, tiny_encoder)
        assert (vars(recipe.data)["text"], recipe.data.label) == (pair, "Quality")


def test_images_and_lists_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 2, "b": 3}\n')
    with pytest.raises(DataError, match=r"has no column of texts; its columns are: a \(int64\), b \(int64\)\. A draft"):
        draft_recipe(str(tmp_path / "a.jsonl"), "m")


def drafted_rows(folder: Path, rows: list[dict[str, Any]], encoder: Path) -> tuple[Recipe, str]:
    text = draft_recipe(str(write_rows(folder / "my.jsonl", rows)), str(encoder))
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml"), text


def test_lists_of_labels_and_columns_of_0_and_1_are_label_sets(tmp_path: Path, tiny_encoder: Path) -> None:
    lists = [["animal"] if row % 2 else ["size", "animal"] if row % 3 else [] for row in range(120)]
    rows = [{"text": text, "labels": labels} for text, labels in zip(TEXTS, lists, strict=True)]
    recipe, text = drafted_rows(tmp_path, rows, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, recipe.data.label) == ("multi_label_classification", "labels")
    assert "# 2 labels, with their rows in train: animal (100), size (40)" in text
    assert "# 1.17 labels a row, 20 rows without a label" in text
    columns: dict[str, list[Any]] = {"id": list(range(120)), "text": TEXTS}
    columns |= {name: [int(name in labels) for labels in lists] for name in ("animal", "size")}
    recipe, text = drafted(tmp_path, columns, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, vars(recipe.data)["label"]) == ("multi_label_classification", ["animal", "size"])
    assert "label: [animal, size]  # the 2 columns of 0 and 1" in text
    assert "# 2 labels, with their rows in train: animal (100), size (40)" in text


def test_columns_of_fractions_are_several_numbers(tmp_path: Path, tiny_encoder: Path) -> None:
    numbers = [row / 4 for row in range(120)]
    recipe, text = drafted(tmp_path, {"text": TEXTS, "near": numbers, "far": numbers[::-1]}, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, vars(recipe.data)["label"]) == ("text_regression", ["near", "far"])
    assert "# near: from 0 to 29.75, mean 14.88\n  # far: from 0 to 29.75, mean 14.88" in text


def test_words_with_tags_in_json_lines_and_conll_and_texts_with_spans(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = tagged_rows(120)
    recipe, text = drafted_rows(tmp_path, [{**row, "fold": "train"} for row in rows], tiny_encoder)
    assert find_problems(recipe) == []
    data = vars(recipe.data)
    assert (recipe.task, data["words"], data["split_column"]) == ("token_classification", "tokens", "fold")
    counts = Counter(tag for row in rows for tag in row["ner_tags"])
    assert f"# {counts.total()} words, {counts['O']} of them with the tag O" in text
    assert f"B-colour ({counts['B-colour']})" in text
    lines = ("".join(f"{word} {tag}\n" for word, tag in zip(*row.values(), strict=True)) for row in rows)
    (tmp_path / "my.conll").write_text("\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(draft_recipe(str(tmp_path / "my.conll"), str(tiny_encoder)))
    assert find_problems(load_recipe(tmp_path / "recipe.yaml")) == []
    spans = [{"text": "the red cat", "spans": [{"start": 4, "end": 7, "label": "colour"}]}] * 120
    recipe, text = drafted_rows(tmp_path, spans, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, vars(recipe.data)["text"]) == ("token_classification", "text")
    assert "# 1 kinds of spans, with their spans in train: colour (120)" in text


def test_questions_with_a_column_of_splits_are_refused_as_they_would_all_be_trained_on(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    rows = tiny_questions(120, 0)
    drafted_rows(tmp_path, [{**row, "fold": "train"} for row in rows], tiny_encoder)
    folds = [{**row, "fold": "test" if number % 4 == 0 else "train"} for number, row in enumerate(rows)]
    with pytest.raises(
        DataError, match="column 'fold' names the splits of the rows, and question_answering reads each"
    ):
        drafted_rows(tmp_path, folds, tiny_encoder)


def test_questions_in_json_lines_and_in_the_form_of_squad(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = tiny_questions(120, 0, no_answer_every=4)
    recipe, text = drafted_rows(tmp_path, rows, tiny_encoder)
    assert find_problems(recipe) == []
    assert (recipe.task, recipe.data.validation) == ("question_answering", "10%")
    assert "# 120 questions on 120 contexts, 30 of them without an answer" in text
    assert "max_length: 16  # 0.0% of the rows are longer, and read in windows\n  stride: 4  #" in text
    paragraphs = [
        {"context": row["context"], "qas": [{"id": "1", "question": row["question"], "answers": row["answers"]}]}
        for row in rows
    ]
    (tmp_path / "my.json").write_text(json.dumps({"data": [{"title": "one", "paragraphs": paragraphs}]}))
    (tmp_path / "recipe.yaml").write_text(draft_recipe(str(tmp_path / "my.json"), str(tiny_encoder)))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.task, recipe.data.validation, find_problems(recipe)) == ("question_answering", None, [])


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
