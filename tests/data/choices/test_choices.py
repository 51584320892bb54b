"""Prompts with candidates: the forms of data and labels, one line for each kind of bad row, cuts, batches, report."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from nlp_ft.data.batch_sampling import token_batches
from nlp_ft.data.choices.encoding import ChoiceCollator, encode_choices, encoded_split, load_choice_data
from nlp_ft.data.choices.report import describe_choices, format_choice_report
from nlp_ft.data.choices.rows import load_choice_splits
from nlp_ft.errors import DataError
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.choices import ChoiceDataSection
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.recipe.text import TextModelSection

GOOD = {"text": "the cat", "candidates": ["red", "blue dog"], "label": 1}


def read(tmp_path: Path, rows: list[dict[str, Any]], **keys: Any) -> list[dict[str, Any]]:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(load_choice_splits(ChoiceDataSection(train=str(file), **keys))["train"])


@pytest.mark.parametrize(
    ("label", "index"),
    [(0, 0), (2, 2), (2.0, 2), ("2", 2), ("A", 0), ("C", 2), ("blue dog", 1), ("3 cats", 2)],
)
def test_a_label_is_an_index_a_letter_or_a_text(tmp_path: Path, label: Any, index: int) -> None:
    row = {"text": "the", "candidates": ["red", "blue dog", "3 cats"], "label": label}
    assert read(tmp_path, [row])[0] == {"prompt": "the", "candidates": ["red", "blue dog", "3 cats"], "label": index}


def test_a_text_that_is_also_the_index_of_the_same_candidate_is_clear(tmp_path: Path) -> None:
    assert read(tmp_path, [{"text": "count", "candidates": ["0", "1"], "label": "1"}])[0]["label"] == 1


@pytest.mark.parametrize("is_struct", [True, False])
@pytest.mark.parametrize(
    ("names", "label", "index"), [("ABC", "C", 2), ("123", "1", 0), ("123", "3", 2), ("CAB", "A", 1)]
)
def test_a_label_is_the_name_of_a_candidate_where_they_carry_names_as_in_arc(
    tmp_path: Path, names: str, label: str, index: int, is_struct: bool
) -> None:
    texts = ["red", "blue dog", "3 cats"]
    listed = [{"text": text, "label": name} for text, name in zip(texts, names, strict=True)]
    candidates = {"text": texts, "label": list(names)} if is_struct else listed
    [row] = read(
        tmp_path, [{"text": "the", "choices": candidates, "answer": label}], candidates="choices", label="answer"
    )
    assert row == {"prompt": "the", "candidates": texts, "label": index}


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        ("AB", "C", "label 'C' must be one of the names of its candidates"),
        ("12", "0", "label '0' must be one of the names of its candidates"),
        ("AA", "A", "each of its 2 candidates needs a name of its own"),
        ("A", "A", "each of its 2 candidates needs a name of its own"),
        ("ABB", "A", "each of its 2 candidates needs a name of its own"),
    ],
)
def test_a_label_that_is_no_name_of_a_candidate_is_refused(
    tmp_path: Path, names: str, label: str, message: str
) -> None:
    row = {"text": "the", "candidates": {"text": ["x", "y"], "label": list(names)}, "label": label}
    with pytest.raises(DataError, match=rf"row 0 \(from 0\): {message}"):
        read(tmp_path, [row])


def test_indices_count_from_1_where_the_recipe_says_so(tmp_path: Path) -> None:
    rows = [{"text": "the cat", "candidates": ["2", "1"], "label": label} for label in "12B"]
    assert [row["label"] for row in read(tmp_path, rows, first_index=1)] == [0, 1, 1]
    with pytest.raises(DataError, match=r"label 0 is out of range: its 2 candidates are 1 to 2, or A to B$"):
        read(tmp_path, [{**GOOD, "label": 0}], first_index=1)
    with pytest.raises(DataError, match=r"0 to 1, or A to B; set data.first_index to 1 where labels count from 1$"):
        read(tmp_path, [{**GOOD, "label": 2}])


def test_a_column_of_right_candidates_beside_those_of_wrong_ones_is_the_label(tmp_path: Path) -> None:
    rows = [{"question": "how many?", "correct_answer": "1", "distractor1": "0", "distractor2": "2"}]
    columns = ["correct_answer", "distractor1", "distractor2"]
    [found] = read(tmp_path, rows, text="question", candidates=columns, label="correct_answer")
    assert found == {"prompt": "how many?", "candidates": ["0", "1", "2"], "label": 1}
    [found] = read(tmp_path, rows, text="question", candidates=columns[::-1], label="correct_answer")
    assert found["label"] == 1
    with pytest.raises(DataError, match="its right candidate '0' is also a wrong one"):
        read(
            tmp_path, [{**rows[0], "correct_answer": "0"}], text="question", candidates=columns, label="correct_answer"
        )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_of_swag_are_read_from_every_format(tmp_path: Path, ending: str) -> None:
    columns = {
        "sent1": ["He cooks.", "She runs."],
        "sent2": ["Then he", ""],
        "ending0": ["eats.", "fast."],
        "ending1": ["sleeps.", "slowly."],
        "label": ["0", "B"],
    }
    file = tmp_path / f"rows.{ending}"
    rows = datasets.Dataset.from_dict(columns)
    {"csv": rows.to_csv, "jsonl": rows.to_json, "parquet": rows.to_parquet}[ending](str(file))
    section = ChoiceDataSection(train=str(file), text=["sent1", "sent2"], candidates=["ending0", "ending1"])
    assert list(load_choice_splits(section)["train"]) == [
        {"prompt": "He cooks. Then he", "candidates": ["eats.", "sleeps."], "label": 0},
        {"prompt": "She runs.", "candidates": ["fast.", "slowly."], "label": 1},
    ]


def test_a_share_of_train_is_drawn_for_validation_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    rows = [{**GOOD, "text": f"the {number}"} for number in range(20)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_choice_splits(ChoiceDataSection(train=str(file), validation="20%"))
    assert {split: len(of_split) for split, of_split in data.items()} == {"train": 16, "validation": 4}
    assert {row["prompt"] for of_split in data.values() for row in of_split} == {row["text"] for row in rows}


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no candidates": ({"candidates": []}, "must have two candidates or more, got []"),
    "one candidate": ({"candidates": ["red"]}, "must have two candidates or more, got ['red']"),
    "missing candidates": ({"candidates": None}, "must have two candidates or more, got None"),
    "empty candidate": ({"candidates": ["red", " "]}, "candidate 1 (from 0) is empty; write it"),
    "null candidate": ({"candidates": [None, "red"]}, "candidate 0 (from 0) is empty"),
    "empty prompt": ({"text": " "}, "has no prompt; write it, or remove the row"),
    "null prompt": ({"text": None}, "has no prompt"),
    "index too high": ({"label": 2}, "label 2 is out of range: its 2 candidates are 0 to 1, or A to B"),
    "negative index": ({"label": -1}, "label -1 is out of range"),
    "half an index": ({"label": 0.5}, "its label must be the right candidate: its index, its letter"),
    "null label": ({"label": None}, "its label must be the right candidate"),
    "text of an index too high": ({"label": "2"}, "label '2' is out of range"),
    "letter too high": ({"label": "C"}, "label 'C' is out of range: its 2 candidates are 0 to 1, or A to B"),
    "unknown text": ({"label": "green"}, "label 'green' is none of its candidates: 'red', 'blue dog'"),
    "nearly a text": ({"label": "blue dg"}, "did you mean blue dog?"),
    "text twice": (
        {"candidates": ["red", "blue", "red"], "label": "red"},
        "label 'red' is the text of candidates 0 and 2; write the index instead",
    ),
    "index and text": (
        {"candidates": ["1", "0"], "label": "1"},
        "label '1' is the index of candidate 1 and the text of candidate 0; write letters",
    ),
    "letter and text": (
        {"candidates": ["B", "A"], "label": "A"},
        "label 'A' is the letter of candidate 0 and the text of candidate 1",
    ),
    "half a character": ({"candidates": ["red", "\ud800"]}, ""),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    changes, message = BAD_ROWS[name]
    # The first row holds what tells the types of the columns.
    first = {**GOOD, "label": type(changes.get("label", 1))(1) if changes.get("label") is not None else 1}
    first["label"] = "blue dog" if isinstance(first["label"], str) else first["label"]
    with pytest.raises(DataError) as caught:
        read(tmp_path, [first, {**GOOD, "label": first["label"], **changes}])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not message or "row 1 (from 0)" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"text": "a", "label": 0}, {}, "data.candidates is 'candidates', but the columns are: text, label"),
        ({**GOOD, "candidates": "red|blue"}, {}, "a column of string, not of lists of texts; write lists"),
        ({**GOOD, "candidates": [1, 2]}, {}, "not of lists of texts"),
        ({**GOOD, "text": 3}, {}, "data.text is 'text', a column of int64, not of texts"),
        (GOOD, {"text": ["text", "question"]}, "data.text is 'question', but the columns are"),
        (GOOD, {"candidates": ["text2", "candidates"]}, "data.candidates is 'text2', but the columns are"),
        ({"text": "t", "a": ["x"], "b": "y", "label": 0}, {"candidates": ["a", "b"]}, "data.candidates is 'a', a col"),
        (GOOD, {"label": "answer"}, "data.label is 'answer', but the columns are"),
        ({**GOOD, "label": True}, {}, "its label must be the right candidate"),
        ({**GOOD, "label": [1]}, {}, "its label must be the right candidate"),
    ],
)  # fmt: skip
def test_bad_columns_are_one_line(tmp_path: Path, row: dict[str, Any], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [row], **keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_prompt_loses_its_beginning_first_as_in_plain_transformers(tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(TextModelSection(name=str(tiny_encoder)))
    prompt, candidates = "red green blue warm cold big", ["cat dog", "bird"]
    found = encode_choices({"prompt": [prompt], "candidates": [candidates], "label": [1]}, tokenizer, 8)
    tokenizer.truncation_side = "left"
    plain = tokenizer([prompt] * 2, candidates, truncation="only_first", max_length=8)["input_ids"]
    assert found["input_ids"] == [plain[0] + plain[1]]
    assert (found["sizes"], found["labels"], found["num_tokens"]) == ([[8, 8]], [[0, 1]], [16])
    assert (found["is_prompt_cut"], found["cut_candidates"]) == ([True], [0])


def test_a_candidate_is_cut_only_where_it_is_too_long_by_itself(tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(TextModelSection(name=str(tiny_encoder)))
    batch: dict[str, Any] = {
        "prompt": ["red green"],
        "candidates": [["cat dog bird big", "cat dog", "cat"]],
        "label": [0],
    }
    found = encode_choices(batch, tokenizer, 6)
    words = tokenizer.convert_ids_to_tokens(found["input_ids"][0])
    assert words == [
        "[CLS]", "green", "[SEP]", "cat", "dog", "[SEP]",
        "[CLS]", "green", "[SEP]", "cat", "dog", "[SEP]",
        "[CLS]", "red", "green", "[SEP]", "cat", "[SEP]",
    ]  # fmt: skip
    assert (found["is_prompt_cut"], found["cut_candidates"]) == ([True], [1])


def test_a_batch_is_padded_to_the_most_candidates_and_tokens(tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(TextModelSection(name=str(tiny_encoder)))
    batch: dict[str, Any] = {
        "prompt": ["red", "red"],
        "candidates": [["cat", "dog cat"], ["cat", "dog", "big"]],
        "label": [1, 2],
    }
    encoded = encode_choices(batch, tokenizer, 8)
    rows = [{key: encoded[key][i] for key in ("input_ids", "token_type_ids", "sizes", "labels")} for i in range(2)]
    found = ChoiceCollator(tokenizer)([{**row, "row": i} for i, row in enumerate(rows)])
    assert {key: tuple(values.shape) for key, values in found.items()} == {
        "input_ids": (2, 3, 6), "token_type_ids": (2, 3, 6), "attention_mask": (2, 3, 6), "labels": (2, 3), "row": (2,),
    }  # fmt: skip
    assert found["labels"].tolist() == [[0, 1, -100], [0, 0, 1]]
    assert found["attention_mask"].sum(-1).tolist() == [[5, 6, 5], [5, 5, 5]]


def test_a_batch_of_so_many_tokens_counts_the_candidates_that_rows_lack(tmp_path: Path, tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(TextModelSection(name=str(tiny_encoder)))
    few, many = ["cat dog big", "dog cat"], ["cat", "dog", "big", "red", "blue"]
    rows = [{"text": "red", "candidates": candidates, "label": 0} for candidates in [few, few, many, many]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_choice_data(ChoiceDataSection(train=str(tmp_path / "rows.jsonl")), tokenizer)
    batches, encoded = token_batches(data.lengths("train"), 80), data.encoded["train"]
    sizes = [ChoiceCollator(tokenizer)([encoded[int(i)] for i in batch])["input_ids"].numel() for batch in batches]
    assert (sizes, [len(batch) for batch in batches]) == ([28, 50], [2, 2])


def test_max_length_must_leave_room_for_both_texts(tmp_path: Path, tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(TextModelSection(name=str(tiny_encoder)))
    section = ChoiceDataSection(train="rows.jsonl", max_length=4)
    with pytest.raises(DataError, match=r"data\.max_length must be at least 5, because prompt and candidate have 3"):
        encoded_split(datasets.Dataset.from_dict({"prompt": []}), "train", tokenizer, section)


def test_the_report_counts_cuts_and_names_rows_to_look_at(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [GOOD, GOOD, {**GOOD, "candidates": ["red", "red", "cat dog bird big"]}, {**GOOD, "text": "the " * 9}]
    for split, of_split in (("train", rows), ("test", [{**GOOD, "candidates": ["blue dog", "red"], "label": 0}])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_split))
    section = ChoiceDataSection(train=str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"), max_length=7)
    report = describe_choices(load_choice_data(section, load_tokenizer(TextModelSection(name=str(tiny_encoder)))))
    assert report["train"] == {
        "rows": 4, "labels": {}, "candidates": "2 to 3", "median_tokens": 7.0, "max_tokens": 7, "cut_prompts": 2,
        "cut_candidates": 1, "same_candidates": 1, "repeated": 1,
    }  # fmt: skip
    assert report["test"]["also_in_train"] == 1
    lines = format_choice_report(report).splitlines()
    assert lines[0].split() == [
        "split", "rows", "candidates", "tokens", "longest", "cut", "prompts", "cut", "candidates",
    ]  # fmt: skip
    assert "look: 1 candidate(s) of train are cut" in "\n".join(lines)


def test_the_recipe_of_swag_reads_the_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source", *(f"ending{i}" for i in range(4))]
    features = {**{name: datasets.Value("string") for name in names}, "label": datasets.ClassLabel(names=list("0123"))}
    values = {name: [name] for name in names} | {"label": [2]}
    asked = []

    def load(source: str, config: str, revision: str | None, split: str) -> datasets.Dataset:
        asked.append((source, config, revision, split))
        return datasets.Dataset.from_dict(values, datasets.Features(features))

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_recipe(Path(__file__).parents[3] / "recipes/swag.yaml").data
    assert isinstance(data, ChoiceDataSection)
    splits = load_choice_splits(data)
    assert asked == [("allenai/swag", "regular", None, split) for split in ("train", "validation")]
    row = {"prompt": "sent1 sent2", "candidates": [f"ending{i}" for i in range(4)], "label": 2}
    assert {split: list(rows) for split, rows in splits.items()} == {"train": [row], "validation": [row]}
