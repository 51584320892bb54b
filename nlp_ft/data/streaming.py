"""Reads the texts of files of any size in chunks, so that the memory needed does not grow with the file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import Features

from nlp_ft.data.row_files import RowFiles
from nlp_ft.data.sources import check_texts, expand, load_files
from nlp_ft.errors import DataError, listed

CHUNK_ROWS = 10_000
"""Rows of a chunk. Prediction sorts a chunk by length: with this many rows, batches have next to no padding."""


def stream_texts(path: str, field: str, names: Sequence[str]) -> Iterator[list[list[str]]]:
    """Read columns of text from files, a glob or a saved dataset folder, at most `CHUNK_ROWS` rows at a time.

    Args:
        path: location of the data; `load_files` reads the same locations.
        field: the recipe key or option that error messages name.
        names: names of the columns.

    Yields:
        One list of texts for each column; a missing text becomes an empty one.

    Raises:
        DataError: nothing is there, formats are mixed or unknown, there are no rows, a column is missing or holds
            something other than text, or a file's content does not match its format.
    """
    files = expand([path], field)
    if all(Path(file).is_dir() for file in files):
        rows = load_files(path, field)
        _require(names, rows.column_names, path, field)
        tables: Iterator[pyarrow.Table] = rows.select_columns(list(names)).with_format("arrow").iter(CHUNK_ROWS)
    else:
        opened = RowFiles(files, field)
        _require(names, opened.columns, path, field)
        tables = opened.tables(names, CHUNK_ROWS)
    waiting: list[list[str]] = [[] for _ in names]
    num_rows = 0
    for table in tables:
        if not num_rows:
            check_texts(Features.from_arrow_schema(table.schema), names, f"{field} ({path})")
        num_rows += table.num_rows
        for column, name in zip(waiting, names):
            column += ["" if text is None else text for text in table[name].to_pylist()]
        while len(waiting[0]) >= CHUNK_ROWS:
            yield [column[:CHUNK_ROWS] for column in waiting]
            waiting = [column[CHUNK_ROWS:] for column in waiting]
    if waiting[0]:
        yield waiting
    if not num_rows:
        raise DataError(f"{field} ({files[0]}) has no rows")


def estimated_rows(path: str, field: str) -> int | None:
    """Estimate the number of rows in files, for a progress bar.

    The estimate counts lines, so it is too high for a CSV file whose texts have several lines.

    Returns:
        The number of rows; None for a folder or a damaged Parquet file.

    Raises:
        DataError: nothing is there.
    """
    total = 0
    for file in map(Path, expand([path], field)):
        if file.is_dir():
            return None
        if file.suffix.lower() == ".parquet":
            try:
                total += pyarrow.parquet.read_metadata(file).num_rows
            except (pyarrow.ArrowException, OSError):
                return None  # the reader of the file will report the damage
            continue
        with file.open("rb") as stream:
            total += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        total -= file.suffix.lower() in (".csv", ".tsv")
    return total


def _require(names: Sequence[str], columns: Sequence[str], path: str, field: str) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(f"{field}: {path} has no column {missing[0]!r}; it has: {listed(columns)}")
