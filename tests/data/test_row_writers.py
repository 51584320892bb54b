"""Rows that are written beside predictions: their values stay, or a message says that a format has no place."""

import io
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nlp_ft.data.row_writers import ParquetWriter
from nlp_ft.errors import DataError


def written(*parts: list[Any]) -> list[Any]:
    """Write the values of a column `held`, part by part, and read them again."""
    stream = io.BytesIO()
    writer = ParquetWriter(stream)
    for part in parts:
        writer.write([{"held": value} for value in part], pyarrow.table({"predicted_label": ["x"] * len(part)}))
    writer.finish()
    return list(pyarrow.parquet.read_table(stream)["held"].to_pylist())


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (1, 1.5),
        (0.5, True),
        (["a"], "ab"),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([{"a": 1}], [{"a": 2, "b": 2}]),
        ([1], [1.5]),
    ],
    ids=["fraction", "truth", "text", "key", "key of a list", "fraction of a list"],
)
def test_values_of_later_rows_that_arrow_would_change_are_refused(first: Any, later: Any) -> None:
    with pytest.raises(DataError, match=r"the values of 'held' have no type in common .* write a \.jsonl file$"):
        written([first], [later])


def test_true_among_fractions_is_no_number() -> None:
    with pytest.raises(DataError, match=r"the values of 'held' .* numbers, and true or false; write a \.jsonl file$"):
        written([0.5, True])


def test_values_of_later_rows_that_a_type_holds_are_written_as_they_are() -> None:
    assert written([0.5, None], [2, None]) == [0.5, None, 2.0, None]
    assert written([{"a": 1, "b": [0.5]}], [{"b": [2, None]}, None]) == [
        {"a": 1, "b": [0.5]},
        {"a": None, "b": [2.0, None]},
        None,
    ]
    assert written([[]], [[]]) == [[], []]
