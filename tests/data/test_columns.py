"""Columns in parts: the same values as one by one, of every type, with and without selected rows."""

from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from nlp_ft.data import columns
from nlp_ft.data.columns import numbers, unique_values, value_codes

COLUMNS: list[tuple[list[Any], Any]] = [
    (["b", "a", "b", "ü", ""], Value("string")),
    (["b", "a", "b", "ü", ""], Value("large_string")),
    (["b", None, "a", "b", None], Value("string")),
    ([3, -1, 3, 200, 0], Value("int64")),
    ([3, 1, 3, 200, 0], Value("uint8")),
    ([True, False, True, True, False], Value("bool")),
    ([1, 0, 1, 2, 0], ClassLabel(names=["x", "y", "z"])),
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 2)


def rows_of(values: list[Any], feature: Any) -> Dataset:
    return Dataset.from_dict(
        {"x": values, "other": range(len(values))}, features=Features(x=feature, other=Value("int64"))
    )


@pytest.mark.parametrize("order", [None, [4, 0, 3, 1]])
@pytest.mark.parametrize(("values", "feature"), COLUMNS)
def test_codes_are_places_among_the_values(values: list[Any], feature: Any, order: list[int] | None) -> None:
    rows = rows_of(values, feature)
    if order:
        rows, values = rows.select(order), [values[i] for i in order]
    present = unique_values(rows, "x")
    assert len(present) == len(set(values))
    codes = value_codes(rows, "x", present[::-1])
    assert [present[::-1][code] for code in codes] == values == rows["x"][:]


@pytest.mark.parametrize("order", [None, [4, 0, 3, 1]])
@pytest.mark.parametrize(("values", "feature"), COLUMNS[3:])
def test_numbers_are_those_of_the_rows(values: list[Any], feature: Any, order: list[int] | None) -> None:
    rows = rows_of(values, feature)
    if order:
        rows, values = rows.select(order), [values[i] for i in order]
    found = numbers(rows, "x")
    assert found.tolist() == values
    assert found.dtype == np.dtype("int64" if isinstance(feature, ClassLabel) else feature.dtype)
