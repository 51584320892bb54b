"""Rows as Python holds them: every form gives the same table, and what is no data is refused by name."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from nlp_ft.api.column import is_text, kept_columns
from nlp_ft.api.row_file import RowFile
from nlp_ft.api.rows import Table, read_rows, require_column, splits_of
from nlp_ft.api.task_seen import Labels, seen_task
from nlp_ft.errors import DataError

TEXTS, LABELS = ["a red cat", "a dog", "a bird"], ["x", "y", "x"]
COLUMNS = {"text": TEXTS, "label": LABELS}
FRAME = pandas.DataFrame(COLUMNS)
FORMS = {
    "DataFrame": FRAME,
    "DataFrame of categories": FRAME.astype({"label": "category"}),
    "DataFrame with gaps in its index": pandas.DataFrame({**COLUMNS}, index=[7, 3, 9]),
    "Dataset": Dataset.from_dict(COLUMNS),
    "Dataset with selected rows": Dataset.from_dict({"text": [*TEXTS, "no"], "label": [*LABELS, "z"]}).select(
        [0, 1, 2]
    ),
    "dict of columns": COLUMNS,
    "dict of arrays": {name: np.array(values) for name, values in COLUMNS.items()},
    "list of dicts": [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
    "list of pairs": list(zip(TEXTS, LABELS, strict=True)),
    "two lists in a tuple": (TEXTS, LABELS),
    "two lists in a list": [TEXTS, LABELS],
    "two columns of a DataFrame": (FRAME["text"], FRAME["label"]),
    "pyarrow": pyarrow.table(COLUMNS),
    "pyarrow with the texts of Polars": pyarrow.table(
        {name: pyarrow.array(values, pyarrow.string_view()) for name, values in COLUMNS.items()}
    ),
}


def read(data: Any, text: Any = "text") -> pyarrow.Table:
    table = read_rows(data, text, "label", "data")
    assert isinstance(table, Table)
    return kept_columns(table.rows, ["text", "label", "more"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_columns(form: str) -> None:
    assert read(FORMS[form]).to_pydict() == COLUMNS


def test_the_bytes_of_a_file_are_the_same_for_the_same_rows_and_its_name_says_so(tmp_path: Path) -> None:
    one, two = RowFile.of("train", read(COLUMNS)), RowFile.of("train", read(FORMS["list of dicts"]))
    other = RowFile.of("train", read((TEXTS, ["x", "y", "y"])))
    assert one.name == two.name != other.name
    one.write(tmp_path / "new")
    assert pyarrow.parquet.read_table(tmp_path / "new" / one.name).to_pydict() == COLUMNS
    assert [file.name for file in (tmp_path / "new").iterdir()] == [one.name]


def test_pairs_of_texts_become_two_columns() -> None:
    table = read([(("a", "b"), "x"), (("c", "d"), "y")], ["text", "more"])
    assert table.to_pydict() == {"text": ["a", "c"], "more": ["b", "d"], "label": ["x", "y"]}
    with pytest.raises(DataError, match=r"^data: the text of row 1 \(from 0\) must be a pair"):
        read([(("a", "b"), "x"), ("c", "y")], ["text", "more"])


def test_numbers_of_numpy_and_missing_values_are_those_of_python() -> None:
    frame = pandas.DataFrame({"text": TEXTS, "label": [1.0, float("nan"), 2.0]})
    assert read(frame).to_pydict()["label"] == [1.0, None, 2.0]
    assert read((TEXTS, [np.int64(1), np.int64(2), np.int64(1)])).to_pydict()["label"] == [1, 2, 1]


def test_ids_of_classes_come_with_their_names() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    table = read_rows(Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1]}, features), "text", "label", "data")
    assert isinstance(table, Table)
    assert table.class_names == {"label": ["no", "yes"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data must be a DataFrame, a data set of `datasets`, .*; got NoneType"),
        (7, "data must be a DataFrame, .*; got int"),
        ([], "data must be a DataFrame, .*; got nothing in it"),
        (["a", "b"], "data must be a DataFrame, .*; got a list of str"),
        (pandas.DataFrame({"text": [], "label": []}), "data has no rows"),
        ((TEXTS, LABELS[:2]), "data holds 3 texts and 2 labels; each text needs one label"),
        ({"text": TEXTS, "label": ["x"]}, "data is a dict, whose columns must be lists of one length; got lengths "),
        ({"text": "abc", "label": "xyz"}, "data is a dict, whose columns must be lists .*; 'text' is str 'abc'"),
        ({"train": FRAME, "test": FRAME}, r"data is a dict, .*; 'train' is a table of its own: .* fit\(d\['train'\], "),
        (
            [FRAME, FRAME],
            r"data is a list of tables; give one table, as pandas.concat makes it, or each split by itself",
        ),
        (FRAME["text"], "data must be a DataFrame, .*; got Series"),
        (zip(TEXTS, LABELS, strict=True), r"data must be .*; got zip; make a list of it first: list\(\.\.\.\)"),
        (Dataset.from_dict(COLUMNS).to_iterable_dataset(), "data must be .*; got IterableDataset; make a list of it"),
        (
            pandas.DataFrame([["a", "b"]], columns=pandas.MultiIndex.from_tuples([("a", "text"), ("a", "label")])),
            r"data has column names of 2 levels, such as \('a', 'text'\); give each column one name",
        ),
        ([(("a", "b"), "x"), (("c", "d"), "y")], r"data holds pairs of texts; .* as in text=\['text_a', 'text_b'\]"),
    ],
)
def test_what_is_no_data_is_refused_by_name(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        read_rows(data, "text", "label", "data")


def test_a_column_that_no_file_can_hold_is_refused_only_where_it_is_needed() -> None:
    table = read_rows({"text": ["a", 7], "label": [1, 2]}, "text", "label", "data")
    assert isinstance(table, Table)
    require_column(table, "label", "label", "data")
    says = (
        r"^data: column 'text' holds values of several kinds: str \(row 0\), int \(row 1\), from 0; make them one kind"
    )
    with pytest.raises(DataError, match=says):
        require_column(table, "text", "text", "data")
    with pytest.raises(DataError, match=r"^data has no column 'words'; its columns are: label, text; name the column"):
        require_column(table, "words", "text", "data")


def test_texts_of_polars_are_texts_in_lists_too() -> None:
    lists = pyarrow.array([["x"], ["y", "z"]], pyarrow.list_(pyarrow.string_view()))
    table = read_rows(pyarrow.table({"text": ["a", "b"], "label": lists}), "text", "label", "data")
    assert isinstance(table, Table)
    assert table.rows.schema.field("label").type == pyarrow.large_list(pyarrow.large_string())
    assert table.rows["label"].to_pylist() == [["x"], ["y", "z"]]
    assert is_text(read(FORMS["pyarrow with the texts of Polars"]).schema.field("text").type)


def test_whole_numbers_name_the_columns_of_dicts_too() -> None:
    rows = [{0: "a", 1: "x"}, {0: "b", 1: "y"}]
    assert read_rows(rows, "0", "1", "data").rows.to_pydict() == {"0": ["a", "b"], "1": ["x", "y"]}  # type: ignore[union-attr]


@pytest.mark.parametrize("is_arrow", [False, True])
def test_a_column_that_occurs_twice_is_refused_only_where_it_is_needed(is_arrow: bool) -> None:
    frame: Any = pandas.DataFrame([["a", "x", 1, 2], ["b", "y", 3, 4]], columns=["text", "label", "n", "n"])
    if is_arrow:
        columns = [frame.iloc[:, place].tolist() for place in range(4)]
        frame = pyarrow.Table.from_arrays(list(map(pyarrow.array, columns)), names=list(frame.columns))
    assert read(frame).to_pydict() == {"text": ["a", "b"], "label": ["x", "y"]}
    table = read_rows(frame, "text", "n", "data")
    assert isinstance(table, Table)
    with pytest.raises(DataError, match=r"^data has the column 'n' twice; rename one"):
        require_column(table, "n", "label", "data")


def test_half_of_a_surrogate_pair_is_refused_with_its_row() -> None:
    says = r"^data: row 1 \(from 0\) of column 'text' holds half of a surrogate pair"
    for rows in (
        {"text": ["a", "b\ud83d"], "label": [0, 1]},
        pandas.DataFrame({"text": ["a", "b\ud83d"]}, dtype=object),
    ):
        table = read_rows(rows, "text", "label", "data")
        assert isinstance(table, Table)
        with pytest.raises(DataError, match=says):
            require_column(table, "text", "text", "data")


def test_whole_numbers_beyond_64_bits_are_refused_and_sparse_ones_taken() -> None:
    table = read_rows({"text": TEXTS, "label": [10**20, 1, 2]}, "text", "label", "data")
    assert isinstance(table, Table)
    with pytest.raises(
        DataError, match=r"^data: column 'label' holds values that no file can hold: Python int too large"
    ):
        require_column(table, "label", "label", "data")
    sparse = FRAME.assign(label=pandas.arrays.SparseArray([0, 1, 2]))
    assert read(sparse).to_pydict()["label"] == [0, 1, 2]


def test_decimal_numbers_are_fractions() -> None:
    labels = read({"text": ["a", "b"], "label": [Decimal("0.5"), Decimal("1.25")]})["label"]
    assert (labels.type, labels.to_pylist()) == (pyarrow.float64(), [0.5, 1.25])


@pytest.mark.parametrize(("share", "message"), [(0.2, "got 0.2; did you mean '20%'"), (True, "got True$")])
def test_a_validation_share_is_written_in_per_cent(share: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^validation must be rows, False, or a share of train .*; {message}"):
        splits_of(COLUMNS, share, None, "text", "label")


def test_a_dataset_dict_brings_its_splits_and_says_what_it_leaves_out() -> None:
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1]})
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    named = rows.cast(features)
    unlabelled = Dataset.from_dict({"text": TEXTS, "label": [-1, -1, -1]}, features)
    splits = splits_of(DatasetDict(train=named, test=unlabelled, extra=named), None, None, "text", "label")
    assert list(splits.by_name) == ["train"]
    assert splits.remarks == [
        "splits left out of data: extra",
        "test: left out, because column 'label' of it holds no labels",
    ]
    splits = splits_of(DatasetDict(train=named, validation=named), COLUMNS, FRAME, "text", "label")
    assert {name: split.rows.num_rows for name, split in splits.by_name.items() if isinstance(split, Table)} == {
        "train": 3,
        "validation": 3,
        "test": 3,
    }
    assert splits.by_name["validation"].rows.to_pydict() == COLUMNS  # type: ignore[union-attr]
    with pytest.raises(DataError, match="data has no split 'train'; it has: test"):
        splits_of(DatasetDict(test=named), None, None, "text", "label")


def test_names_of_files_stay_names() -> None:
    assert read_rows(Path("a.csv"), "text", "label", "data") == "a.csv"
    assert read_rows(["a.csv", "b.csv"], "text", "label", "data") == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("values", "task", "reason"),
    [
        (["a", "b", "a"], "text_classification", "column 'y' holds 2 different texts"),
        ([1, 5, 3], "text_classification", "column 'y' holds 3 different whole numbers"),
        (list(range(77)), "text_classification", "column 'y' holds 77 different whole numbers"),
        ([*range(1, 78)], "text_regression", "column 'y' holds 77 different whole numbers, too many for labels"),
        ([0.5, 1.0], "text_regression", "column 'y' holds fractions such as 0.5"),
        (
            [2.0, None, 1.0],
            "text_regression",
            "column 'y' holds numbers of type float; of type int, a few would be labels",
        ),
        ([True, False], "text_classification", "column 'y' holds labels"),
    ],
)
def test_the_task_is_seen_in_the_labels(values: list[Any], task: str, reason: str) -> None:
    assert seen_task(Labels("y", pyarrow.chunked_array([values]))) == (task, reason)


def test_texts_of_a_csv_that_read_as_numbers_are_numbers_but_elsewhere_they_are_labels() -> None:
    values = pyarrow.chunked_array([["0.5", "-1e-3"]])
    assert seen_task(Labels("y", values, are_texts_only=True))[0] == "text_regression"
    assert seen_task(Labels("y", values))[0] == "text_classification"


def test_lists_are_for_several_labels() -> None:
    labels = Labels("y", pyarrow.chunked_array([[["a", "b"], ["a"]]]))
    assert seen_task(labels) == ("multi_label_classification", "column 'y' holds lists of labels")
