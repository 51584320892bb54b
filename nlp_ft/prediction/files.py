"""Writes predictions to CSV, JSON Lines or Parquet, chunk by chunk; the file gets its name only when it is whole."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pyarrow

from nlp_ft.data.row_files import Rows
from nlp_ft.data.row_writers import WRITERS
from nlp_ft.errors import DataError

Write = Callable[[Rows, pyarrow.Table], None]
"""A function that writes rows as they were read, and the columns of their predictions."""


@contextmanager
def prediction_file(path: str) -> Iterator[Write]:
    """Open a file for rows of predictions; it is renamed to `path` at the end, and removed after an error.

    Args:
        path: path of the file; its ending, .csv, .jsonl or .parquet, decides the format.

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
            writer = WRITERS[file.suffix.lower()](stream)

            def write(rows: Rows, predicted: pyarrow.Table) -> None:
                with _disk_named(path):
                    writer.write(rows, predicted)

            with _closed_after_errors(stream, writer.finish):
                yield write
            with _disk_named(path), _closed_after_errors(stream):
                writer.finish()
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
