"""Writes rows as they were read, with further columns beside them, to CSV, JSON Lines or Parquet, part by part.

The values of the rows stay as they are; numbers in the further columns have six decimals, but those in Parquet.
"""

import base64
import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from nlp_ft.data.row_files import Rows
from nlp_ft.errors import DataError


class RowWriter(ABC):
    """Writes rows to a stream. A subclass knows a format; the first part that is written decides the columns.

    A further column that is called like a column of the rows gets `_2` (or `_3`, ...) behind its name, and so do all
    the others with it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.names: list[str] = []
        self.added: list[str] = []
        self._has_begun = False

    def write(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write rows with further columns, a row each. Raises: DataError: the format cannot hold a value or column."""
        if not self._has_begun:
            self._has_begun = True
            self.names = names_of(rows)
            self.added = free_names(added.column_names, self.names)
            self.begin(rows, added)
        self.write_part(rows, added)

    @abstractmethod
    def begin(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write what stands before the first row."""

    @abstractmethod
    def write_part(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write rows."""

    def finish(self) -> None:
        """Write what is still in a buffer after the last row."""
        self.stream.flush()


class CsvWriter(RowWriter):
    """Writes texts as they are, a missing value as an empty field, and any other value as in JSON."""

    def begin(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write the header."""
        self._text = io.TextIOWrapper(self.stream, encoding="utf-8", newline="", write_through=True)
        self._csv = csv.writer(self._text)
        self._csv.writerow([*self.names, *self.added])

    def write_part(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write lines."""
        if isinstance(rows, list):
            require_known(rows, self.names, "CSV")
            own: Iterable[Sequence[Any]] = ([row.get(name) for name in self.names] for row in rows)
        else:
            own = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        further = zip(*(_decimals(column, "{:.6f}".format) for column in added.columns), strict=True)
        self._csv.writerows([*map(_cell, row), *map(_cell, more)] for row, more in zip(own, further, strict=True))

    def finish(self) -> None:
        """Leave the stream open for its owner."""
        if self._has_begun:
            self._text.detach()


class JsonLinesWriter(RowWriter):
    """Writes an object a line; objects that were read from JSON keep their keys and nested values."""

    def begin(self, rows: Rows, added: pyarrow.Table) -> None:
        """Check that no column is there twice: an object has each key once."""
        _require_once(self.names, "JSON Lines")

    def write_part(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write lines."""
        objects = rows if isinstance(rows, list) else rows.to_pylist()
        further = zip(*(_decimals(column, lambda value: round(value, 6)) for column in added.columns), strict=True)
        for row, values in zip(objects, further, strict=True):
            taken = [name for name in self.added if name in row]
            if taken:
                raise DataError(
                    f"--output: the key {taken[0]!r} of a later row is a column of the predictions; rename it"
                )
            line = json.dumps({**row, **dict(zip(self.added, values, strict=True))}, ensure_ascii=False, default=_plain)
            self.stream.write(line.encode("utf-8", "backslashreplace") + b"\n")


class ParquetWriter(RowWriter):
    """Writes values in their types; those of JSON get the types that all values of a column fit into."""

    def begin(self, rows: Rows, added: pyarrow.Table) -> None:
        """Decide the types."""
        _require_once(self.names, "Parquet")
        first = _as_table(rows, self.names, None)
        self._given = pyarrow.schema([_kept(field) for field in first.schema])
        schema = pyarrow.schema([*self._given, *(field.with_name(n) for field, n in zip(added.schema, self.added))])
        self._schema = schema
        self._parquet = pyarrow.parquet.ParquetWriter(self.stream, schema)

    def write_part(self, rows: Rows, added: pyarrow.Table) -> None:
        """Write a row group."""
        table = _as_table(rows, self.names, self._given)
        self._parquet.write_table(pyarrow.Table.from_arrays([*table.columns, *added.columns], schema=self._schema))

    def finish(self) -> None:
        """Write the footer."""
        if self._has_begun:
            self._parquet.close()


WRITERS: dict[str, type[RowWriter]] = {".csv": CsvWriter, ".jsonl": JsonLinesWriter, ".parquet": ParquetWriter}
"""Ending of a file's name -> the writer of its format."""


def names_of(rows: Rows) -> list[str]:
    """List the columns of a table, or the keys of objects, in their order."""
    if isinstance(rows, list):
        return list(dict.fromkeys(name for row in rows for name in row))
    return list(rows.column_names)


def free_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return the names, or the names with the first of `_2`, `_3`, ... behind all of them that clashes with none."""
    number, found = 1, list(names)
    while set(found) & set(taken):
        number += 1
        found = [f"{name}_{number}" for name in names]
    return found


def require_known(rows: Sequence[dict[str, Any]], names: Collection[str], what: str) -> None:
    """Check the keys of objects. Raises: DataError: one is not among the columns."""
    known = set(names)
    new = next((name for row in rows for name in row if name not in known), None)
    if new is not None:
        raise DataError(
            f"--output: the key {new!r} is in later rows and not in the first ones, so a {what} file has no column for "
            "it; write a .jsonl file"
        )


def _require_once(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"--output: the input has the column {twice!r} {names.count(twice)} times, which {what} cannot hold; write "
            "a .csv file, or rename all but one"
        )


def _decimals(column: pyarrow.ChunkedArray, write: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if not pyarrow.types.is_floating(column.type):
        return values
    return [value if value is None else write(value) for value in values]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    written = json.dumps(value, ensure_ascii=False, default=_plain)
    # A date is written in JSON as a text; in a field of its own it needs no quotation marks.
    return written if isinstance(value, bool | int | float | list | dict) else str(json.loads(written))


def _plain(value: Any) -> str:
    """Write what JSON has no form for: a date or time in ISO 8601, bytes in Base64, a decimal with all its digits."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _kept(field: pyarrow.Field) -> pyarrow.Field:
    """Take a column of nothing but missing values for one of texts: later rows may hold some."""
    return pyarrow.field(field.name, pyarrow.string() if pyarrow.types.is_null(field.type) else field.type)


def _as_table(rows: Rows, names: Sequence[str], schema: pyarrow.Schema | None) -> pyarrow.Table:
    """Make a table of the columns; objects of JSON get the types of the schema, or those that fit them."""
    if not isinstance(rows, list):
        return rows if schema is None else rows.cast(schema)
    require_known(rows, names, "Parquet")
    kinds = [None] * len(names) if schema is None else schema.types
    arrays = []
    for name, kind in zip(names, kinds, strict=True):
        values = [row.get(name) for row in rows]
        try:
            found = pyarrow.array(values)
            if kind is not None and not _holds(kind, found.type):
                raise pyarrow.ArrowInvalid(f"{found.type} in later rows, and {kind} in the first ones")
            if pyarrow.types.is_floating(found.type) and any(isinstance(value, bool) for value in values):
                raise pyarrow.ArrowInvalid("numbers, and true or false")
            arrays.append(found if kind in (None, found.type) else pyarrow.array(values, kind))
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"--output: the values of {name!r} have no type in common that Parquet knows: {reason}; write a .jsonl "
                "file"
            ) from None
    return pyarrow.Table.from_arrays(arrays, names=list(names))


def _holds(known: pyarrow.DataType, found: pyarrow.DataType) -> bool:
    """Whether a type holds values of another as they are: Arrow itself would cut 1.5 to 1, and leave out new keys."""
    types = pyarrow.types
    if types.is_struct(known) and types.is_struct(found):
        return all(known.get_field_index(of.name) >= 0 and _holds(known.field(of.name).type, of.type) for of in found)
    if types.is_list(known) and types.is_list(found):
        return _holds(known.value_type, found.value_type)
    return bool(known == found or types.is_null(found) or (types.is_floating(known) and types.is_integer(found)))
