"""Reads Parquet with the types of the file; categories become their values, and an index of pandas is left out."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow
import pyarrow.parquet

from nlp_ft.data.unreadable import UnreadableError

_INDEX = re.compile(r"__index_level_\d+__")


def parquet_columns(file: str) -> list[str]:
    """Read the names of the columns. Raises `UnreadableError` if the file is cut or damaged."""
    with _opened(file) as opened, _as_unreadable():
        return _columns(opened.schema_arrow)


def parquet_tables(file: str, columns: Sequence[str], num_rows: int) -> Iterator[pyarrow.Table]:
    """Read columns in tables.

    Args:
        file: path of the file.
        columns: names of the columns to read.
        num_rows: most rows of a table.

    Raises:
        UnreadableError: the file is cut or damaged.
    """
    with _opened(file) as opened:
        batches = opened.iter_batches(batch_size=num_rows, columns=list(columns))
        while True:
            with _as_unreadable():
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
            yield _decoded(pyarrow.Table.from_batches([batch]).select(list(columns)))


def _opened(file: str) -> Any:
    with _as_unreadable():
        return pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def _as_unreadable() -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # damaged names and pandas metadata raise ValueError
        raise UnreadableError((str(error).splitlines() or [type(error).__name__])[0]) from None


def _columns(schema: pyarrow.Schema) -> list[str]:
    described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    index = {name for name in described.get("index_columns", []) if isinstance(name, str) and _INDEX.fullmatch(name)}
    return [name for name in schema.names if name not in index]


def _decoded(table: pyarrow.Table) -> pyarrow.Table:
    for position, field in enumerate(table.schema):
        kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
        kind = pyarrow.string() if pyarrow.types.is_null(kind) else kind
        if kind != field.type:
            table = table.set_column(position, field.with_type(kind), table.column(position).cast(kind))
    return table
