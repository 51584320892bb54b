"""Reads files of rows (CSV, TSV, JSON Lines, Parquet) strictly, for training, evaluation and prediction alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
from datasets import Dataset

from nlp_ft.data.csv_rows import csv_columns, csv_tables
from nlp_ft.data.file_advice import advice_on, encoding_of, header_advice, line_without_utf8
from nlp_ft.data.json_rows import json_columns, json_tables
from nlp_ft.data.parquet_rows import parquet_columns, parquet_tables
from nlp_ft.data.stored import content_hash, stored_rows
from nlp_ft.data.unreadable import UnreadableError
from nlp_ft.errors import DataError, listed

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ROWS_OF_A_BATCH = 10_000
"""Rows of a record batch on the disk. Opening a file reads the head of each batch, and the system loads 64 KB around
it: with batches of 1000 short texts, that would be the whole file."""
MOST_WAITING = 10
"""Tables that are held until a later one says what a column without values may hold."""
Rows: TypeAlias = pyarrow.Table | list[dict[str, Any]]
"""Whole rows of a file: a table with all of its columns, or the objects of JSON as they are written."""


@dataclass(frozen=True)
class RowFiles:
    """Files of rows, all of one format.

    Args:
        files: paths of the files.
        field: the recipe key or option that error messages name.

    Raises:
        DataError: formats are mixed or unknown, or a file is empty or binary.
    """

    files: Sequence[str]
    field: str

    def __post_init__(self) -> None:
        suffixes = {Path(file).suffix.lower() for file in self.files}
        if len(suffixes) != 1 or not suffixes <= FORMATS.keys():
            found = ", ".join(sorted(suffix or "none" for suffix in suffixes))
            raise DataError(
                f"{self.field}: files must all be one of {', '.join(FORMATS)}, got {found}{advice_on(sorted(suffixes))}"
            )
        for file in self.files:
            if Path(file).is_dir():
                raise DataError(f"{self.field}: {file} is a folder, and others are files; give one kind")
            with open(file, "rb") as stream:
                start = stream.read(4096)
            if not start.strip():
                raise DataError(f"{self.field}: {file} is empty")
            if b"\0" in start and self.format != "parquet":
                raise DataError(f"{self.field}: {file} {encoding_of(file, start)}")

    @property
    def suffix(self) -> str:
        """Suffix of all files in lower case, such as `.csv`."""
        return Path(self.files[0]).suffix.lower()

    @property
    def format(self) -> str:
        """Format of all files: `csv`, `json` or `parquet`."""
        return FORMATS[self.suffix]

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns of the first file. Raises `DataError` if it cannot be read or has no rows."""
        found = self._columns_of(self.files[0])
        if not found:
            raise DataError(f"{self.field} ({self.files[0]}) has no rows")
        return found

    def tables(self, columns: Sequence[str], num_rows: int = ROWS_OF_A_BATCH) -> Iterator[pyarrow.Table]:
        """Read columns in tables of at most `num_rows` rows, all with the schema of the first.

        Raises:
            DataError: a file lacks a column or has it twice, or its content does not match its format.
        """
        kinds: dict[str, type] = {}

        def tables_of(file: str) -> Iterator[tuple[pyarrow.Table, Rows]]:
            self._require(file, columns)
            return self._tables(file, columns, num_rows, kinds)

        known = self._united(tables_of) if self.format == "json" else None
        return (table for table, _ in self._of_one_schema(tables_of, known))

    def whole_rows(self, needed: Sequence[str], num_rows: int) -> Iterator[tuple[pyarrow.Table, Rows]]:
        """Read all columns, at most `num_rows` rows at a time.

        Args:
            needed: names of columns that each file must have, each once and with values of one type.
            num_rows: most rows of a part.

        Yields:
            A table with at least the needed columns, and its whole rows.

        Raises:
            DataError: a file lacks a column or has another one, or its content does not match its format.
        """
        kinds: dict[str, type] = {}

        def tables_of(file: str) -> Iterator[tuple[pyarrow.Table, Rows]]:
            self._require(file, needed)
            if self.format == "json":
                return self._tables(file, needed, num_rows, kinds)
            found = self._columns_of(file)
            if self.format == "csv" and found == self.columns:
                return self._tables(file, None, num_rows, kinds)
            if sorted(found) != sorted(self.columns):
                raise DataError(
                    f"{self.field}: {file} has the columns {listed(found)}, and {self.files[0]} has "
                    f"{listed(self.columns)}; give all files the same columns"
                )
            self._require(file, self.columns)
            return self._tables(file, self.columns, num_rows, kinds)

        return self._of_one_schema(tables_of)

    def _united(self, tables_of: Callable[[str], Iterator[tuple[pyarrow.Table, Rows]]]) -> pyarrow.Schema | None:
        """Read all tables for the keys of objects: later ones may have more. None where the first have no objects."""
        schema: pyarrow.Schema | None = None
        for table, _, _ in self._with_files(tables_of):
            if schema is None and not any(map(_may_hold_objects, table.schema.types)):
                return None
            try:
                both = [table.schema] if schema is None else [schema, table.schema]
                schema = pyarrow.unify_schemas(both, promote_options="permissive")
            except pyarrow.ArrowException:
                return None  # `_as_first` says what differs.
        return schema

    def _of_one_schema(
        self,
        tables_of: Callable[[str], Iterator[tuple[pyarrow.Table, Rows]]],
        schema: pyarrow.Schema | None = None,
    ) -> Iterator[tuple[pyarrow.Table, Rows]]:
        """Read the tables of all files, in the types of a schema or else of the first; rows of JSON stay as they are.

        Where a column has no values yet, or empty lists alone, nothing says what it could hold: such tables wait for
        one that says it, at most `MOST_WAITING`, so that a long file is never held as a whole.
        """
        waiting: list[tuple[pyarrow.Table, Rows, str]] = []
        is_open = True
        for table, rows, file in self._with_files(tables_of):
            if schema is None:
                schema = table.schema
            elif is_open:
                schema = _better_known(schema, table.schema)
            waiting.append((table, rows, file))
            is_open = is_open and len(waiting) < MOST_WAITING and any(map(_is_unknown, schema.types))
            if not is_open:
                schema = _decided(schema)
                yield from self._alike(waiting, schema)
                waiting = []
        if schema is not None:
            yield from self._alike(waiting, _decided(schema))

    def _with_files(
        self, tables_of: Callable[[str], Iterator[tuple[pyarrow.Table, Rows]]]
    ) -> Iterator[tuple[pyarrow.Table, Rows, str]]:
        for file in self.files:
            tables = tables_of(file)
            while True:
                with self._reading(file):
                    table, rows = next(tables, (None, []))
                if table is None:
                    break
                yield table, rows, file

    def _alike(
        self, tables: Sequence[tuple[pyarrow.Table, Rows, str]], schema: pyarrow.Schema
    ) -> Iterator[tuple[pyarrow.Table, Rows]]:
        for table, rows, file in tables:
            alike = self._as_first(table, schema, file)
            yield alike, rows if self.format == "json" else alike

    def load(self, columns: Sequence[str] | None = None) -> Dataset:
        """Read all rows into a dataset that is cached on the disk.

        Args:
            columns: names of the columns to read; None reads all.

        Raises:
            DataError: there are no rows, or an error of `tables`.
        """
        wanted = self.columns if columns is None else list(dict.fromkeys(columns))
        key = f"{self.suffix} {wanted} {content_hash(self.files)}"
        rows = stored_rows(key, lambda: (table for table in self.tables(wanted) if table.num_rows))
        if rows is None:
            raise DataError(f"{self.field} ({self.files[0]}) has no rows")
        return rows

    def _columns_of(self, file: str) -> list[str]:
        with self._reading(file):
            if self.format == "csv":
                return csv_columns(file, SEPARATORS[self.suffix])
            return json_columns(file) if self.format == "json" else parquet_columns(file)

    def _tables(
        self, file: str, columns: Sequence[str] | None, num_rows: int, kinds: dict[str, type]
    ) -> Iterator[tuple[pyarrow.Table, Rows]]:
        """Read columns of a file, in CSV also all (None), with the objects that the rows come from in JSON."""
        if self.format == "csv":
            return ((table, []) for table in csv_tables(file, SEPARATORS[self.suffix], columns, num_rows))
        assert columns is not None
        if self.format == "json":
            return json_tables(file, columns, num_rows, kinds)
        return ((table, []) for table in parquet_tables(file, columns, num_rows))

    def _require(self, file: str, columns: Sequence[str]) -> None:
        found = self._columns_of(file)
        for name in columns:
            if name not in found and not (self.format == "json" and not found):
                raise DataError(
                    f"{self.field}: {file} has no column {name!r}; it has: {listed(found)}{header_advice(found, file)}"
                )
            if found.count(name) > 1:
                raise DataError(
                    f"{self.field}: {file} has the column {name!r} {found.count(name)} times; rename all but one"
                )

    def _as_first(self, table: pyarrow.Table, schema: pyarrow.Schema, file: str) -> pyarrow.Table:
        for position, (field, first) in enumerate(zip(table.schema, schema)):
            both = (field.type, first.type)
            if field.type != first.type and _fits(*both):
                column = pyarrow.array(table.column(position).to_pylist(), first.type)
                table = table.set_column(position, first, column)
            elif field.type != first.type and not any(all(map(same, both)) for same in _ALIKE):
                raise DataError(
                    f"{self.field}: column {field.name!r} holds {field.type} in {file}, and {first.type} in the files "
                    "before it; give it one type"
                )
        try:
            return table.cast(schema)
        except pyarrow.ArrowException as error:
            raise DataError(f"{self.field}: {file}: {str(error).splitlines()[0]}") from None

    @contextmanager
    def _reading(self, file: str) -> Iterator[None]:
        try:
            yield
        except (UnreadableError, UnicodeDecodeError) as error:
            reason = line_without_utf8(file) if isinstance(error, UnicodeDecodeError) else error
            raise DataError(f"{self.field}: {file} cannot be read as {self.format}: {reason}") from None


_ALIKE = (
    pyarrow.types.is_integer,
    lambda kind: pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_null(kind),
)
"""Groups of types: a column may have different types of one group in different files, since the values are the same."""


def _is_list(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind))


def _is_unknown(kind: pyarrow.DataType) -> bool:
    """Whether a column holds nothing but missing values and empty lists."""
    return bool(pyarrow.types.is_null(kind.value_type if _is_list(kind) else kind))


def _decided(schema: pyarrow.Schema) -> pyarrow.Schema:
    """Take columns without any value for texts."""
    types = [pyarrow.string() if pyarrow.types.is_null(kind) else kind for kind in schema.types]
    return pyarrow.schema(zip(schema.names, types))


def _may_hold_objects(kind: pyarrow.DataType) -> bool:
    return _is_unknown(kind) or bool(pyarrow.types.is_struct(kind.value_type if _is_list(kind) else kind))


def _better_known(schema: pyarrow.Schema, other: pyarrow.Schema) -> pyarrow.Schema:
    """Take what another schema knows of the columns that one does not know."""
    return pyarrow.schema(
        [
            new if _is_unknown(old.type) and not pyarrow.types.is_null(new.type) else old
            for old, new in zip(schema, other)
        ]
    )


def _fits(found: pyarrow.DataType, known: pyarrow.DataType) -> bool:
    """Whether values are of a type that knows more: of empty lists or missing values, or of objects with less keys."""
    if _is_list(found) and _is_list(known):
        return _fits(found.value_type, known.value_type)
    if pyarrow.types.is_struct(found) and pyarrow.types.is_struct(known):
        return all(known.get_field_index(f.name) >= 0 and _fits(f.type, known.field(f.name).type) for f in found)
    return bool(found == known or pyarrow.types.is_null(found))
