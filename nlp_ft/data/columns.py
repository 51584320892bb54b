"""Reads columns of a dataset as arrays, in parts, so that a million rows do not become a million Python objects."""

import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset

ROWS_AT_ONCE = 100_000
ROWS_HASHED_TOGETHER = 1000


def numbers(rows: Dataset, column: str) -> np.ndarray:
    """Read a column of numbers, label ids or truth values without gaps, (rows,), in the column's type.

    A column of lists that are all of one length gives (rows, length).
    """
    return np.concatenate([_array(part) for part in _parts(rows, column)])


def value_codes(rows: Dataset, column: str, values: Sequence[Any]) -> np.ndarray:
    """Find the index of each row's value in a list of values.

    Args:
        rows: the rows.
        column: name of the column.
        values: the `unique_values` of the column, in any order.

    Returns:
        The indices, (rows,), int32.
    """
    codes = []
    for part in _parts(rows, column):
        indices = pyarrow.compute.index_in(part, value_set=pyarrow.array(values, part.type))
        codes.append(indices.to_numpy())
    return np.concatenate(codes)


def unique_values(rows: Dataset, column: str) -> list[Any]:
    """List the different values of a column."""
    # Without `select_columns`, `unique` writes a copy of all columns if rows were selected before.
    values: list[Any] = rows.select_columns([column]).unique(column)
    return values


def selected(rows: Dataset, numbers: np.ndarray) -> Dataset:
    """Select rows by their numbers, (rows,), in such a way that `row_numbers` finds the numbers again."""
    # `select` would cut out rows that follow each other, and forget where the cut began.
    return rows._select_with_indices_mapping(numbers)


def row_numbers(rows: Dataset) -> np.ndarray:
    """Find the number of each row in the data that was read, (rows,), whatever was `selected` from them."""
    return np.arange(len(rows)) if rows._indices is None else rows._indices.column(0).to_numpy().astype(np.int64)


def numbered(rows: Dataset, columns: Sequence[str], chosen: np.ndarray, name: str = "row") -> pyarrow.Table:
    """Read columns of the chosen rows, (chosen,), behind a column `name` with the `row_numbers` of these rows."""
    found = rows.select_columns(list(columns)).with_format("arrow")[chosen.tolist()]
    return found.add_column(0, name, pyarrow.array(row_numbers(rows)[chosen]))


def fingerprint(rows: Dataset, column: str) -> str:
    """Hash the values of a column in their order; lists of numbers are hashed without making Python objects."""
    digest = blake2b(digest_size=16)
    for part in _parts(rows, column):
        if _holds_lists_of_numbers(part.type):
            for values in (pyarrow.compute.list_value_length(part), pyarrow.compute.list_flatten(part)):
                array = np.ascontiguousarray(values.to_numpy())
                digest.update((array if array.dtype.kind == "f" else array.astype(np.int64)).data)
        else:
            digest.update(repr(part.to_pylist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _holds_lists_of_numbers(kind: pyarrow.DataType) -> bool:
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    return bool(is_list and pyarrow.types.is_primitive(kind.value_type))


def text_hash(texts: Sequence[str]) -> int:
    """Hash the texts of a row to 64 bits.

    Texts that differ only in case, in white space, or in whether an accent is a character of its own (Unicode's NFC and
    NFD) have the same hash.
    """
    plain = "\x1f".join(" ".join(unicodedata.normalize("NFC", text.lower()).split()) for text in texts)
    return int(np.frombuffer(blake2b(plain.encode("utf-8", "replace"), digest_size=8).digest(), np.int64)[0])


def input_hashes(rows: Dataset, columns: Sequence[str]) -> np.ndarray:
    """Hash what each row has in some columns, (rows,), int64; see `text_hash`. The texts of a list are joined."""
    hashes = [np.empty(0, np.int64)]
    for part in rows.select_columns(list(columns)).iter(ROWS_HASHED_TOGETHER):
        texts = (
            [" ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells]
            for cells in zip(*(part[column] for column in columns))
        )
        hashes.append(np.fromiter(map(text_hash, texts), np.int64))
    return np.concatenate(hashes)


def content_of(value: object) -> str:
    """Hash the `repr` of a value."""
    return blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _array(part: Any) -> np.ndarray:
    if not pyarrow.types.is_list(part.type):
        found: np.ndarray = part.to_numpy()
        return found
    flat: np.ndarray = pyarrow.compute.list_flatten(part).to_numpy()
    return flat.reshape(len(part), -1)


def _parts(rows: Dataset, column: str) -> Iterator[Any]:
    for table in rows.select_columns([column]).with_format("arrow").iter(ROWS_AT_ONCE):
        yield table[column]
