"""Checks labels that are numbers to learn: every row must hold a finite number other than `IGNORED_LABEL`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.columns import unique_values
from nlp_ft.data.labels import NUMBER
from nlp_ft.errors import DataError, listed
from nlp_ft.screen import note

LOST = 0.01
"""Most that a number may change where it is kept in float32, as a share of the deviation of all numbers."""


def check_numbers(splits: Mapping[str, Dataset], column: str) -> None:
    """Check that the label column of every split holds finite numbers; a note says if their last digits are lost.

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
        values = unique_values(rows, column)
        wrong = [value for value in values if not is_number(value)]
        if wrong:
            where = [str(row) for row, value in enumerate(rows[column]) if not is_number(value)]
            raise DataError(
                f"{split} has label(s) in column {column!r} that are not finite numbers: {listed(map(repr, wrong), 5)} "
                f"(rows {listed(where, 5)}, from 0); correct or remove those rows{_ignored(wrong)}"
            )
        _note_lost_digits(np.array(values, np.float64), split, column)


def _note_lost_digits(values: np.ndarray, split: str, column: str) -> None:
    """Say if numbers lie so close together for their size, (values,), that float32 does not tell them apart."""
    lost = np.abs(values.astype(np.float32) - values)
    if len(values) > 1 and lost.max() > LOST * values.std():
        value = values[lost.argmax()]
        note(
            f"look: numbers are kept with 7 digits, so {value:.15g} in column {column!r} of {split} becomes "
            f"{np.float32(value):.15g}: subtract a constant, such as {values.mean():.6g}, from all numbers"
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
