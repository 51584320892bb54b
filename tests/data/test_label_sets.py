"""Sets of labels: three ways to write them, each read strictly, and a validation share drawn by label."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from nlp_ft.data.label_sets import LabelSets
from nlp_ft.data.splits import draw_validation_by_labels
from nlp_ft.errors import DataError, RecipeError
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.recipe.text import TextDataSection

SETS = [["b"], [], ["a", "c"], ["c", "b"]]
INDICATORS = [[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 1, 1]]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif file.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(file)
    else:
        lines = [",".join(f'"{value}"' for value in row.values()) for row in rows]
        file.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    return str(file)


def found(file: str, **settings: Any) -> tuple[list[str], list[list[int]]]:
    raw, labels = LabelSets.load(TextDataSection(train=file, **settings))
    return labels.names, labels.indicators(raw["train"]).tolist()


def rows_of(values: list[Any]) -> list[dict[str, Any]]:
    return [{"text": f"text {row}", "label": value} for row, value in enumerate(values)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_lists_are_sets_of_labels(tmp_path: Path, ending: str) -> None:
    assert found(write(tmp_path / f"a.{ending}", rows_of(SETS))) == (["a", "b", "c"], INDICATORS)


@pytest.mark.parametrize(
    ("separator", "between"),
    [("|", "|"), (", ", ", "), (",", ", "), (" ", "  "), ("; ", "; "), ("\t", "\t"), ("\t", " \t ")],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_separated_texts_are_sets_of_labels(tmp_path: Path, ending: str, separator: str, between: str) -> None:
    file = write(tmp_path / f"a.{ending}", rows_of([between.join(labels) for labels in SETS]))
    assert found(file, label_separator=separator) == (["a", "b", "c"], INDICATORS)


@pytest.mark.parametrize(
    ("ending", "no", "yes"),
    [("csv", "0", "1"), ("csv", "False", "True"), ("csv", "0.0", "1.0"), ("jsonl", 0, 1), ("jsonl", False, True)],
)
def test_columns_of_zero_and_one_are_sets_of_labels_in_their_order(
    tmp_path: Path, ending: str, no: Any, yes: Any
) -> None:
    rows = [{"text": "x", **{name: yes if name in labels else no for name in "cab"}} for labels in SETS]
    names, indicators = found(write(tmp_path / f"a.{ending}", rows), label=["a", "b", "c"])
    assert (names, indicators) == (["a", "b", "c"], INDICATORS)


def test_label_names_give_the_order_of_the_ids_and_numbers_are_ids(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", rows_of([[1], [0, 2]]))
    assert found(file) == (["0", "1", "2"], [[0, 1, 0], [1, 0, 1]])
    assert found(file, label_names=["x", "y", "z", "w"]) == (["x", "y", "z", "w"], [[0, 1, 0, 0], [1, 0, 1, 0]])


def test_the_names_of_a_list_of_class_labels_are_the_labels(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["z", "y"]))})
    Dataset.from_dict({"text": ["a", "b"], "label": [[0], [1, 0]]}, features).save_to_disk(tmp_path / "saved")
    assert found(str(tmp_path / "saved")) == (["z", "y"], [[1, 0], [1, 1]])


def test_rows_for_a_trained_model_get_the_ids_of_its_labels_and_may_have_none() -> None:
    for values, expected in (([["c"], []], [[0, 0, 1], [0, 0, 0]]), ([[], []], [[0, 0, 0]] * 2)):
        rows = Dataset.from_dict({"text": ["x", "y"], "label": values})
        labels = LabelSets.of_model(rows, "new", TextDataSection(train="a"), ["a", "b", "c"])
        assert labels.indicators(rows).tolist() == expected
    with pytest.raises(DataError, match=r"^new has label\(s\) that the model does not have: d \(column 'label'\)"):
        LabelSets.of_model(
            Dataset.from_dict({"text": ["x"], "label": [["d"]]}), "new", TextDataSection(train="a"), ["a", "b"]
        )


LISTS: list[tuple[list[Any], dict[str, Any], str]] = [
    ([["a", "b"], None], {}, r"^train has no list of labels in column 'label' of rows 1, from 0; write \[\]"),
    ([["a", ""], ["b"]], {}, r"^train has an empty label in column 'label' of rows 0, from 0; remove it$"),
    ([["a", None], ["b"]], {}, r"^train has an empty label in column 'label' of rows 0"),
    ([["a", " b"], []], {}, r"^train has the label ' b' in column 'label': a blank at its beginning or end"),
    ([[], []], {}, r"^data.label: no row of train has a label in column 'label'; is it the right column\?$"),
    ([["a"], ["a"]], {}, r"^data.label: classification needs two labels or more; .* holds only: \['a'\]"),
    ([["a", 1], []], {}, r"'label' holds a value that cannot be stored"),
    ([["a"], "b"], {}, r"'label' is a text, and a list in the rows before it"),
    (
        [[["a"]], [["b"]]],
        {},
        r"^data.label: the lists in column 'label' of train must hold strings or whole numbers, got List",
    ),
    ([[0.5], [1.0]], {}, r"^labels must be strings or whole numbers; column 'label' of train holds float64$"),
    ([["a"], ["b"]], {"label_separator": "|"}, r"^data.label_separator '\|' parts texts, but column 'label' of train"),
    ([["a"], ["b"]], {"label_names": ["a", "c"]}, r"^train has label\(s\) that data.label_names does not have: b"),
    ([1, 2], {}, r"^data.label: column 'label' of train holds int64; expected a list of labels, a text with"),
    ([1.5, 2.5], {}, r"^data.label: column 'label' of train holds float64; expected a list"),
    (
        ["a", "b,c"],
        {},
        r"holds texts; say what is between the labels of a text with data.label_separator, such as ','$",
    ),
    (["a", "b c"], {}, r"with data.label_separator, such as '\|'$"),
    (
        ["a|b", "c|"],
        {"label_separator": "|"},
        r"^train has an empty label .* of rows 1, from 0, such as nothing before",
    ),
    (["a||b", "c"], {"label_separator": "|"}, r"^train has an empty label in column 'label' of rows 0"),
    (["", ""], {"label_separator": "|"}, r"^data.label: no row of train has a label"),
]


@pytest.mark.parametrize(("values", "settings", "message"), LISTS)
def test_what_is_no_set_of_labels_is_named(
    tmp_path: Path, values: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        found(write(tmp_path / "a.jsonl", rows_of(values)), **settings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": "1", "b": "2"}], r"^data.label: column 'b' of train must hold 0 or 1 .*; got '2' \(rows 0, from 0\)$"),
        ([{"a": "1", "b": "0"}, {"a": "", "b": "1"}], r"column 'a' of train .* got '' \(rows 1, from 0\)$"),
        ([{"a": "yes", "b": "no"}], r"column 'a' of train must hold 0 or 1 in every row"),
        ([{"a": "0", "b": "0"}], r"^data.label: no row of train has a label; every column holds only 0$"),
        ([{"a": "1", "c": "0"}], r"data.label is 'b', but the columns are: text, a, c|no column 'b'"),
    ],
)
def test_columns_must_hold_zero_or_one(tmp_path: Path, rows: list[dict[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(write(tmp_path / "a.csv", [{"text": "x", **row} for row in rows]), label=["a", "b"])


def test_a_list_in_the_column_of_a_label_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "x", "a": [1], "b": 0}])
    with pytest.raises(DataError, match=r"^data.label: column 'a' of train must hold 0 or 1 in every row"):
        found(file, label=["a", "b"])


def test_a_label_of_test_that_train_lacks_is_an_error_unless_it_is_listed(tmp_path: Path) -> None:
    train, test = (write(tmp_path / f"{i}.jsonl", rows_of(sets)) for i, sets in enumerate(([["a"], ["b"]], [["c"]])))
    with pytest.raises(DataError, match=r"^test has label\(s\) that the train split does not have: c"):
        LabelSets.load(TextDataSection(train=train, test=test))
    _, labels = LabelSets.load(TextDataSection(train=train, test=test, label_names=["a", "b", "c"]))
    assert labels.names == ["a", "b", "c"]


RECIPE = {"task": "multi_label_classification", "model": {"name": "m"}, "output_dir": "x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"label": ["a"]}}, r"data.label must be one column or a list of two or more, got \['a'\]"),
        ({"data": {"label": ["a", "b", "a"]}}, "data.label must name each column once, got 'a' twice"),
        ({"data": {"label": ["a", "b"], "label_separator": "|"}}, "data.label_separator is for labels in one column"),
        ({"data": {"label": ["a", "b"], "label_names": ["a", "b"]}}, "data.label_names is for labels in one column"),
        ({"training": {"threshold": "tuned"}}, "training.threshold tuned needs data.validation"),
        ({"training": {"threshold": 1.0}}, r"training.threshold must be .*got 1.0"),
        ({"training": {"threshold": "tunned"}}, r"training.threshold must be .*got 'tunned'; did you mean tuned\?"),
        ({"training": {"metric": "accuracy"}}, "training.metric accuracy is no metric of multi_label_classification"),
        (
            {"task": "text_classification", "training": {"threshold": 0.3}},
            "training.threshold is for task: multi_label",
        ),
        ({"task": "text_classification", "data": {"label_separator": "|"}}, "data.label_separator is for task: multi"),
        (
            {"task": "text_classification", "data": {"label": ["a", "b"]}},
            "data.label must be one column for text_classification",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {**RECIPE, **changes, "data": {"train": "a.jsonl", **changes.get("data", {})}}
    with pytest.raises(RecipeError, match=message):
        recipe_from_dict(values)


def test_a_drawn_validation_share_has_the_same_share_of_each_label() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.5, 0.2, 0.05, 0.02])
    indicators = (generator.random((1000, 4)) < shares).astype(np.int8)
    rows = Dataset.from_dict({"row": range(1000)})
    drawn = draw_validation_by_labels({"train": rows, "test": rows}, indicators, ["row"], "10%")
    train, validation = drawn["train"]["row"][:], drawn["validation"]["row"][:]
    assert (sorted([*train, *validation]), drawn["test"]) == (list(range(1000)), rows)
    assert abs(len(validation) - 100) <= 5
    assert np.abs(indicators[validation].sum(0) - indicators.sum(0) / 10).max() <= 1
    again = draw_validation_by_labels({"train": rows}, indicators, ["row"], "10%")["validation"]["row"][:]
    assert again == validation


def test_rows_of_label_sets_with_equal_texts_are_drawn_together() -> None:
    rows = Dataset.from_dict({"text": [f"text {i % 50}" for i in range(200)]})
    indicators = np.tile(np.eye(5, dtype=np.int8), (40, 1))
    drawn = draw_validation_by_labels({"train": rows}, indicators, ["text"], "20%")
    texts = {split: set(drawn[split]["text"]) for split in drawn}
    assert (len(drawn["validation"]), len(texts["validation"])) == (40, 10)
    assert not texts["train"] & texts["validation"]


def test_a_share_is_not_drawn_where_each_label_has_one_row(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", rows_of([[str(i)] for i in range(9)]))
    with pytest.raises(
        DataError, match=r"^data.validation: 10% of train cannot be drawn by label: every label has too"
    ):
        found(file, validation="10%")
