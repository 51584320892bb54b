"""Labels: ids and names of every kind of column, and the rows and splits that are refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from nlp_ft.data.labels import alike, find_labels, label_counts, labels_of_model
from nlp_ft.errors import DataError

REMEDY = "add training rows, remove those rows, or list every label in data.label_names"
POLARITY = ClassLabel(names=["neg", "pos"])


def rows(values: Sequence[Any], feature: Any = None) -> Dataset:
    features = Features({"label": feature}) if feature else None
    return Dataset.from_dict({"label": list(values)}, features=features)


def class_rows(ids: Sequence[int], feature: ClassLabel = POLARITY) -> Dataset:
    # Dataset.from_dict refuses ids out of range; files and casts of them do not.
    return rows(ids, Value("int64")).with_format("arrow").cast(Features({"label": feature})).with_format(None)


def found(label_names: Sequence[str] | None = None, **splits: Any) -> list[tuple[Any, str]]:
    raw = {split: values if isinstance(values, Dataset) else rows(values) for split, values in splits.items()}
    return list(find_labels(raw, "label", label_names).items())


def the_error(label_names: Sequence[str] | None = None, **splits: Any) -> str:
    with pytest.raises(DataError) as caught:
        found(label_names, **splits)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "B", "b"], [("B", "B"), ("a", "a"), ("b", "b")]),
        (["NA", "null", "no"], [("NA", "NA"), ("no", "no"), ("null", "null")]),
        ([10, 2, 1, 2], [(1, "1"), (2, "2"), (10, "10")]),
        ([-1, 1], [(-1, "-1"), (1, "1")]),
        (["10", "9"], [("9", "9"), ("10", "10")]),
        (["10", "09"], [("09", "09"), ("10", "10")]),
        ([True, False], [(False, "False"), (True, "True")]),
    ],
)
def test_labels_get_their_ids_in_sorted_order(values: list[Any], expected: list[tuple[Any, str]]) -> None:
    assert found(train=values) == expected


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "string", "large_string"])
def test_every_type_of_strings_and_whole_numbers_is_taken(dtype: str) -> None:
    values = ["0", "1"] if "string" in dtype else [0, 1]
    assert [name for _, name in found(train=rows(values, Value(dtype)))] == ["0", "1"]


def test_a_class_label_column_brings_its_ids_and_names() -> None:
    assert found(train=class_rows([1, 0, 1])) == [(0, "neg"), (1, "pos")]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (["yes", "no"], [("no", "no"), ("yes", "yes"), ("maybe", "maybe")]),
        (["no", "no"], [("no", "no"), ("yes", "yes"), ("maybe", "maybe")]),
        ([1, 0], [(0, "no"), (1, "yes"), (2, "maybe")]),
        ([True, False], [(0, "no"), (1, "yes"), (2, "maybe")]),
        (class_rows([1, 0]), [(0, "no"), (1, "yes"), (2, "maybe")]),
    ],
)
def test_label_names_give_the_order_and_name_numbers(train: Any, expected: list[tuple[Any, str]]) -> None:
    assert found(["no", "yes", "maybe"], train=train) == expected


@pytest.mark.parametrize("names", [["True", "False"], ["true", "false"]])
def test_true_and_false_get_the_names_that_say_so(names: list[str]) -> None:
    expected = [(True, names[0]), (False, names[1])]
    assert found(names, train=[False, True]) == expected
    assert list(labels_of_model(rows([False]), "f", "label", names, are_given=True).items()) == expected


def test_a_label_whose_own_name_is_listed_gets_no_other_one() -> None:
    three = ClassLabel(names=["neg", "neutral", "pos"])
    message = the_error(["neg", "pos", "neut"], train=class_rows([0, 1, 2], three))
    assert message == (
        "data.label_names would call the label 'pos' 'neut', though it lists 'pos' too; name all labels of the column, "
        "neg, neutral, pos, or put a new name in the place of each"
    )
    assert found(["bad", "neutral", "good"], train=class_rows([0, 1, 2], three)) == [
        (0, "bad"),
        (1, "neutral"),
        (2, "good"),
    ]


def test_ids_of_a_class_label_are_never_taken_for_those_of_a_model_with_other_names() -> None:
    other = class_rows([0, 1], ClassLabel(names=["positive", "negative"]))
    with pytest.raises(DataError) as caught:
        labels_of_model(other, "f", "label", ["bad", "good"], False)
    message = "f has label(s) that the model does not have: negative, positive (column 'label')"
    assert str(caught.value).startswith(message)
    more = class_rows([1, 2], ClassLabel(names=["c", "a", "b"]))
    assert labels_of_model(more, "f", "label", ["a", "b"], False) == {1: "a", 2: "b"}
    assert labels_of_model(other, "f", "label", ["0", "1"], False) == {0: "0", 1: "1"}
    turned = class_rows([0, 1], ClassLabel(names=["1", "0"]))
    assert labels_of_model(turned, "f", "label", ["0", "1"], False) == {1: "0", 0: "1"}


def test_label_names_in_another_order_do_not_rename_a_class_label() -> None:
    assert found(["pos", "neg"], train=class_rows([0, 1])) == [(1, "pos"), (0, "neg")]


def test_a_listed_label_may_be_missing_from_train() -> None:
    assert found(["a", "b", "c"], train=["a", "b"], test=["c"]) == [("a", "a"), ("b", "b"), ("c", "c")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, "b", ""], "2 row(s) of train have no label in column 'label': rows 1, 3 (from 0)"),
        ([0, None, 1, -1], "1 row(s) of train have no label in column 'label': rows 1 (from 0)"),
        (
            [None] * 7 + ["a"],
            "7 row(s) of train have no label in column 'label': rows 0, 1, 2, 3, 4 and 2 more (from 0)",
        ),
        (class_rows([0, 1, -1]), "1 row(s) of train have no label in column 'label': rows 2 (from 0)"),
    ],
)
def test_rows_without_a_label_are_named(values: Any, message: str) -> None:
    assert the_error(train=values) == message


def test_rows_without_a_label_in_another_split_are_named_too() -> None:
    message = "1 row(s) of test have no label in column 'label': rows 2 (from 0)"
    assert the_error(train=["a", "b"], test=["a", "b", ""]) == message


def test_one_class_is_refused() -> None:
    message = "data.label: classification needs two labels or more; column 'label' of train holds only: ['a']"
    assert the_error(train=["a", "a"]) == message


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_train_does_not_have_is_refused(split: str) -> None:
    expected = f"{split} has label(s) that the train split does not have: c (column 'label'); {REMEDY}"
    assert the_error(train=["a", "b"], **{split: ["a", "c"]}) == expected


def test_an_unlisted_label_is_refused_with_the_nearest_listed_one() -> None:
    expected = "train has label(s) that data.label_names does not have: refnd (column 'label'); did you mean refund?; "
    assert the_error(["refund", "card"], train=["refnd", "card"]) == expected + REMEDY


def test_more_numbers_than_names_are_refused() -> None:
    expected = f"train has label(s) that data.label_names does not have: 2, 3 (column 'label'); {REMEDY}"
    assert the_error(["no", "yes"], train=[0, 1, 2, 3]) == expected


def test_an_id_outside_the_names_of_a_class_label_is_refused() -> None:
    expected = "train has label id(s) 2 in column 'label', which has 2 names: neg, pos"
    assert the_error(train=class_rows([0, 1, 2])) == expected


def test_class_labels_in_another_order_than_in_train_are_refused() -> None:
    other = class_rows([0, 1], ClassLabel(names=["pos", "neg"]))
    message = the_error(train=class_rows([0, 1]), test=other)
    assert message == "column 'label' of test has the names pos, neg, but that of train has neg, pos"


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([0.5, 1.0], "float64"),
        ([0.0, 1.0, None], "float64; write 1.0 as 1, as pandas does with .astype({'label': int})"),
        ([[1], [2]], "List(Value('int64'))"),
    ],
)
def test_other_types_are_refused_by_name(values: list[Any], held: str) -> None:
    message = f"labels must be strings or whole numbers; column 'label' of train holds {held}"
    assert the_error(train=values) == message


def test_every_label_is_counted_in_the_order_of_the_ids() -> None:
    counts = label_counts(np.array([2, 0, 2]), ["a", "b", "c", "d"])
    assert list(counts.items()) == [("a", 1), ("b", 0), ("c", 2), ("d", 0)]


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["0", "1"], ["no", "yes"], {"0": "no", "1": "yes"}),
        (["yes", "no"], ["no", "yes"], {"no": "no", "yes": "yes"}),
        (["0", "2"], ["1", "2", "3"], {"0": "1", "1": "2", "2": "3"}),
        ([0, 2], ["1", "2", "3"], {0: "1", 1: "2", 2: "3"}),
        (["1", "other"], ["1", "other"], {"1": "1", "other": "other"}),
    ],
)
def test_texts_are_read_as_the_names_listed_or_as_their_ids(values: Any, names: list[str], expected: Any) -> None:
    assert dict(found(names, train=values)) == expected


@pytest.mark.parametrize("values", [["1", "2"], [1, 2]])
def test_values_that_can_be_names_and_ids_of_other_names_are_refused(values: list[Any]) -> None:
    message = "data.label_names: 1 (column 'label') can be the label 1 or the id of 2; leave label_names out"
    assert the_error(["1", "2", "3"], train=values).startswith(message)
    assert dict(found(train=values)) == {value: str(value) for value in values}


@pytest.mark.parametrize(
    ("values", "names", "are_given", "expected"),
    [
        ([1, 2], ["1", "2", "3"], True, {0: "1", 1: "2", 2: "3"}),
        (["1", "2"], ["1", "2", "3"], True, {"0": "1", "1": "2", "2": "3"}),
        ([1, 2], ["1", "2", "3"], False, {1: "1", 2: "2", "3": "3"}),
        (["1", "2"], ["1", "2", "3"], False, {"1": "1", "2": "2", "3": "3"}),
        ([1, 0], ["neg", "pos"], False, {0: "neg", 1: "pos"}),
        (["1", "0"], ["neg", "pos"], False, {"0": "neg", "1": "pos"}),
        (["007", "7"], ["007", "7"], False, {"007": "007", "7": "7"}),
    ],
)
def test_a_trained_model_reads_labels_as_its_training_did(
    values: Any, names: list[str], are_given: bool, expected: Any
) -> None:
    assert labels_of_model(rows(values), "f", "label", names, are_given) == expected


def test_a_number_that_is_no_label_of_a_model_is_never_taken_for_an_id() -> None:
    with pytest.raises(DataError, match="does not have: 0 "):
        labels_of_model(rows([0, 1]), "f", "label", ["1", "2"], False)


def test_labels_in_unlike_files_that_differ_by_their_type_alone_say_so() -> None:
    message = the_error(train=["0", "1"], test=[0, 1])
    assert "one file holds numbers and another holds texts (a CSV has only texts): write both in one format" in message


def test_names_that_look_alike_are_found() -> None:
    names = ["Red", "red", "gr een", "gr\u00a0een", "blue", "bl\u200bue", "Straße", "STRASSE", "other"]
    assert alike(names) == [["Red", "red"], ["gr een", "gr\u00a0een"], ["blue", "bl\u200bue"], ["Straße", "STRASSE"]]
