"""Columns as arrays, a part at a time: a million rows must not become a million Python objects."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset

ROWS_AT_ONCE = 100_000


def numbers(rows: Dataset, column: str) -> np.ndarray:
    """A column of numbers, label ids or truth values without gaps, (rows,), in its own type."""
    return np.concatenate([part.to_numpy() for part in _parts(rows, column)])


def value_codes(rows: Dataset, column: str, values: Sequence[Any]) -> np.ndarray:
    """Place of each row's value among the values, (rows,), int32.

    Args:
        rows: the rows.
        column: its name.
        values: `unique_values` of the column, in any order.
    """
    codes = []
    for part in _parts(rows, column):
        places = pyarrow.compute.index_in(part, value_set=pyarrow.array(values, part.type))
        codes.append(places.to_numpy())
    return np.concatenate(codes)


def unique_values(rows: Dataset, column: str) -> list[Any]:
    """The different values of a column."""
    # Of rows that were selected, `unique` writes a copy with all their columns.
    values: list[Any] = rows.select_columns([column]).unique(column)
    return values


def fingerprint(rows: Dataset, column: str) -> str:
    """Of a column's values in their order, to the bit; lists of numbers are read without making objects of them."""
    digest = blake2b(digest_size=16)
    for part in _parts(rows, column):
        if pyarrow.types.is_list(part.type) or pyarrow.types.is_large_list(part.type):
            for values in (pyarrow.compute.list_value_length(part), pyarrow.compute.list_flatten(part)):
                digest.update(np.ascontiguousarray(values.to_numpy()).astype(np.int64).data)
        else:
            digest.update(repr(part.to_pylist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def content_of(value: object) -> str:
    """A fingerprint of what Python shows of a value."""
    return blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _parts(rows: Dataset, column: str) -> Iterator[Any]:
    for table in rows.select_columns([column]).with_format("arrow").iter(ROWS_AT_ONCE):
        yield table[column]
