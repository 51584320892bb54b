"""Labels that are numbers: each row of the column must hold one, and not the mark of rows that are left out."""

import math
from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from nlp_ft.data.batch_loading import IGNORED_LABEL
from nlp_ft.data.columns import unique_values
from nlp_ft.data.labels import NUMBER
from nlp_ft.errors import DataError, listed


def check_numbers(splits: Mapping[str, Dataset], column: str) -> None:
    """Raises: DataError: a split has a label that is no finite number; it is named with its rows."""
    for split, rows in splits.items():
        wrong = [value for value in unique_values(rows, column) if not is_number(value)]
        if wrong:
            where = [str(row) for row, value in enumerate(rows[column]) if not is_number(value)]
            raise DataError(
                f"{split} has label(s) in column {column!r} that are no finite numbers: {listed(map(repr, wrong), 5)} "
                f"(rows {listed(where, 5)}, from 0); mend or remove those rows"
            )


def is_number(value: Any) -> bool:
    """Whether a value, or the text of a CSV, is a number to learn."""
    if isinstance(value, str):
        value = float(value) if NUMBER.fullmatch(value) else None
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and abs(value) < 1e30 and value != IGNORED_LABEL
