"""Checks labels that are numbers to learn: every row must hold a finite number other than `IGNORED_LABEL`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Value

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.columns import unique_values
from nlp_ft.data.labels import NUMBER
from nlp_ft.errors import DataError, listed


def check_numbers(splits: Mapping[str, Dataset], column: str) -> None:
    """Check that the label column of every split holds finite numbers.

    Args:
        splits: split name -> rows.
        column: name of the label column.

    Raises:
        DataError: a label is not a finite number; the message names the labels and their rows.
    """
    for split, rows in splits.items():
        if not isinstance(feature := rows.features[column], Value | ClassLabel):
            raise DataError(
                f"{split}: data.label is {column!r}, a column of {feature}, not of numbers; several numbers a row are "
                "several columns"
            )
        wrong = [value for value in unique_values(rows, column) if not is_number(value)]
        if wrong:
            where = [str(row) for row, value in enumerate(rows[column]) if not is_number(value)]
            raise DataError(
                f"{split} has label(s) in column {column!r} that are not finite numbers: {listed(map(repr, wrong), 5)} "
                f"(rows {listed(where, 5)}, from 0); correct or remove those rows{_ignored(wrong)}"
            )


def _ignored(wrong: Sequence[Any]) -> str:
    is_there = any(str(value) in (f"{IGNORED_LABEL}", f"{IGNORED_LABEL}.0") for value in wrong)
    return f"; {IGNORED_LABEL} stands for a missing number here, so add a constant to all numbers" if is_there else ""


def is_number(value: Any) -> bool:
    """Whether a value, or the text of a CSV file, is a finite number that can be a label."""
    if isinstance(value, str):
        value = float(value) if NUMBER.fullmatch(value) else None
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and abs(value) < 1e30 and value != IGNORED_LABEL
