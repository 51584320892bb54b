"""Writes predictions to CSV, JSON Lines or Parquet, chunk by chunk; the file gets its name only when it is whole."""

import csv
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from nlp_ft.errors import DataError

Rows = tuple[Sequence[Any], ...]
"""The values of each column."""
Columns = Mapping[str, type]
"""Name of a column -> type of its values, `str` or `float`."""
Write = Callable[[Rows], None]
Writer = tuple[Write, Callable[[], object]]
"""A function that writes rows, and one that writes what is still in a buffer after the last row."""


def check_output(path: str, overwrite: bool) -> None:
    """Check, before a model is loaded, that predictions can be written to a file. Raises: DataError."""
    file = Path(path)
    if file.is_dir():
        raise DataError(f"--output: {path}: Is a directory")
    if file.suffix.lower() not in _WRITERS:
        raise DataError(f"--output: the file's name must end in {', '.join(_WRITERS)}, got {path}")
    if file.exists() and not overwrite:
        raise DataError(f"--output: {path} exists; choose another, or pass --overwrite to replace it")
    if not file.absolute().parent.is_dir():
        raise DataError(f"--output: {path}: No such file or directory")


@contextmanager
def prediction_file(path: str, columns: Columns) -> Iterator[Write]:
    """Open a file for rows of predictions; it is renamed to `path` at the end, and removed after an error.

    Args:
        path: path of the file; its ending, .csv, .jsonl or .parquet, decides the format.
        columns: names and types of the columns; the first column holds the inputs.

    Yields:
        A function that writes rows.

    Raises:
        DataError: the disk refuses the file.
    """
    file = Path(path)
    # A unique name in the same folder: `out.csv.partial` may be a file of the user.
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        with _disk_named(path):
            stream = partial.open("xb")
        with stream:
            with _disk_named(path), _closed_after_errors(stream):
                write_rows, finish = _WRITERS[file.suffix.lower()](stream, columns)

            def write(rows: Rows) -> None:
                with _disk_named(path):
                    write_rows(rows)

            with _closed_after_errors(stream, finish):
                yield write
            with _disk_named(path), _closed_after_errors(stream):
                finish()
                stream.flush()
                os.fsync(stream.fileno())
        with _disk_named(path):
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _closed_after_errors(stream: IO[bytes], finish: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Close after an error without raising another: the rest of the buffer cannot be written either."""
    try:
        yield
    except BaseException:
        for close in (finish, stream.close):
            with suppress(Exception):
                close()
        raise


@contextmanager
def _disk_named(path: str) -> Iterator[None]:
    """Name the file in the error of a full disk. Raises: DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"--output: {path}: {error.strerror or error}; it holds what it held before") from None


def _csv(stream: IO[bytes], columns: Columns) -> Writer:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(columns)

    def write(rows: Rows) -> None:
        shown = [map("{:.6f}".format, values) if kind is float else values for kind, values in _typed(columns, rows)]
        writer.writerows(zip(*shown, strict=True))

    return write, text.detach


def _jsonl(stream: IO[bytes], columns: Columns) -> Writer:
    def write(rows: Rows) -> None:
        shown = [[round(v, 6) for v in values] if kind is float else values for kind, values in _typed(columns, rows)]
        for row in zip(*shown, strict=True):
            line = dict(zip(columns, row))
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    return write, stream.flush


def _parquet(stream: IO[bytes], columns: Columns) -> Writer:
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float32()}
    schema: Any = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    writer = pyarrow.parquet.ParquetWriter(stream, schema)
    return lambda rows: writer.write_table(pyarrow.table(list(rows), schema=schema)), writer.close


def _typed(columns: Columns, rows: Rows) -> list[tuple[type, Sequence[Any]]]:
    return list(zip(columns.values(), rows, strict=True))


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
