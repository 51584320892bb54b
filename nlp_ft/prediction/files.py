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
from nlp_ft.prediction.disk import disk_named
from nlp_ft.training import durable

Write = Callable[[Rows, pyarrow.Table], None]
"""A function that writes rows as they were read, and the columns of their predictions."""


@contextmanager
def prediction_file(path: str, folder: Path | None = None) -> Iterator[Write]:
    """Open a file for rows of predictions; it is renamed to `path` at the end, and removed after an error.

    Args:
        path: path of the file; its ending, .csv, .jsonl or .parquet, decides the format.
        folder: a folder on the same disk to write it in, which is not shared; None writes it beside its final place.

    Yields:
        A function that writes rows.

    Raises:
        DiskError: the disk refuses the file.
    """
    file = Path(path)
    # A unique name in the same folder: `out.csv.partial` may be a file of the user.
    partial = folder / file.name if folder else file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        with disk_named(path):
            stream = partial.open("wb" if folder else "xb")
        with stream:
            writer = WRITERS[file.suffix.lower()](stream)

            def write(rows: Rows, predicted: pyarrow.Table) -> None:
                with disk_named(path):
                    writer.write(rows, predicted)

            with _closed_after_errors(stream, writer.finish):
                yield write
            with disk_named(path), _closed_after_errors(stream):
                writer.finish()
                stream.flush()
                os.fsync(stream.fileno())
        with disk_named(path):
            durable.rename(partial, file)
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
