"""Reads the texts of files of any size in chunks, so that the memory needed does not grow with the file."""

from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Features

from nlp_ft.data.csv_rows import LONGEST_TEXT
from nlp_ft.data.row_files import RowFiles, Rows
from nlp_ft.data.sources import check_texts, expand, load_files
from nlp_ft.errors import DataError, listed
from nlp_ft.screen import note

CHUNK_ROWS = 10_000
"""Rows of a chunk. Prediction sorts a chunk by length: with this many rows, batches have next to no padding."""
BLOCK_BYTES = 1 << 20
"""Most bytes of standard input that are read at once; a pipe gives 64 KB."""


def stream_texts(path: str, field: str, names: Sequence[str]) -> Iterator[tuple[list[list[str]], Rows]]:
    """Read columns of text from files, a glob or a saved dataset folder, at most `CHUNK_ROWS` rows at a time.

    A note at the end counts the rows without text, such as those that spell the key otherwise.

    Args:
        path: location of the data; `load_files` reads the same locations.
        field: the recipe key or option that error messages name.
        names: names of the columns.

    Yields:
        One list of texts for each column, where a missing text becomes an empty one; and the whole rows they are from.

    Raises:
        DataError: nothing is there, formats are mixed or unknown, there are no rows, a column is missing or holds
            something other than text, or a file's content does not match its format.
    """
    files = expand(path, field)
    parts = _opened(files, path, field).whole_rows(names, CHUNK_ROWS)
    count = blank = 0
    for rows in _regrouped(_checked(parts, names, f"{field} ({path})")):
        columns = [_texts(rows, name) for name in names]
        count += len(rows)
        blank += sum(not all(map(str.strip, texts)) for texts in zip(*columns, strict=True))
        yield columns, rows
    if not count:
        raise DataError(f"{field} ({files[0]}) has no rows")
    if blank:
        note(f"{blank:,} of {count:,} rows of {path} have no text in {' or '.join(names)}; they count as empty texts")


def stream_columns(path: str, field: str, names: Sequence[str]) -> Iterator[tuple[list[Any], Rows]]:
    """Read the first of some columns that files have, whatever its values are, at most `CHUNK_ROWS` rows at a time.

    Args:
        path: location of the data; `load_files` reads the same locations.
        field: the recipe key or option that error messages name.
        names: names of columns, the preferred one first.

    Yields:
        The values of the column, where a missing one becomes an empty text; and the whole rows they are from.

    Raises:
        DataError: see `stream_texts`; or the files have none of the columns.
    """
    files = expand(path, field)
    opened = _opened(files, path, field)
    name = next((name for name in names if name in opened.columns), None)
    if name is None:
        raise DataError(f"{field}: {path} has none of the columns {listed(names)}; it has: {listed(opened.columns)}")
    has_rows = False
    for rows in _regrouped(rows for _, rows in opened.whole_rows([name], CHUNK_ROWS)):
        has_rows = True
        yield _texts(rows, name), rows
    if not has_rows:
        raise DataError(f"{field} ({files[0]}) has no rows")


def stream_lines(stream: BufferedIOBase, name: str) -> Iterator[list[str]]:
    """Read lines as they arrive: those that are there are given without waiting for more.

    Args:
        stream: UTF-8 text, such as standard input.
        name: the name of the stream in error messages.

    Yields:
        One line or more without line breaks; an empty line is an empty text.

    Raises:
        DataError: there is no line, or one is not UTF-8 or too long.
    """
    number, rest = 0, b""
    while block := stream.read1(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST_TEXT:
            raise DataError(f"{name}: line {number + len(lines) + 1} has more than {LONGEST_TEXT:,} bytes")
        if lines:
            yield [_decoded(line, number + i, name) for i, line in enumerate(lines, 1)]
            number += len(lines)
    if rest:
        yield [_decoded(rest, number + 1, name)]
    elif not number:
        raise DataError(f"{name} holds no line; give one input a line")


def estimated_rows(path: str, field: str) -> int | None:
    """Estimate the number of rows in files, for a progress bar.

    The estimate counts lines, so it is too high for a CSV file whose texts have several lines.

    Returns:
        The number of rows; None for a folder or a damaged Parquet file.

    Raises:
        DataError: nothing is there.
    """
    total = 0
    for file in map(Path, expand(path, field)):
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


class _SavedRows:
    """Rows of saved dataset folders, which are read as those of `RowFiles` are."""

    def __init__(self, path: str, field: str) -> None:
        self.path, self.field, self.rows = path, field, load_files(path, field)
        self.columns: list[str] = self.rows.column_names

    def whole_rows(self, needed: Sequence[str], num_rows: int) -> Iterator[tuple[pyarrow.Table, Rows]]:
        """Read all columns, at most `num_rows` rows at a time. Raises: DataError: a needed one is missing."""
        missing = [name for name in needed if name not in self.columns]
        if missing:
            raise DataError(f"{self.field}: {self.path} has no column {missing[0]!r}; it has: {listed(self.columns)}")
        return ((table, table) for table in self.rows.with_format("arrow").iter(num_rows))


def _opened(files: Sequence[str], path: str, field: str) -> RowFiles | _SavedRows:
    return _SavedRows(path, field) if all(Path(file).is_dir() for file in files) else RowFiles(files, field)


def _checked(parts: Iterator[tuple[pyarrow.Table, Rows]], names: Sequence[str], where: str) -> Iterator[Rows]:
    """Check that the columns of the first table hold texts; yield the whole rows. Raises: DataError."""
    for number, (table, rows) in enumerate(parts):
        if not number:
            check_texts(Features.from_arrow_schema(table.select(list(names)).schema), names, where)
        yield rows


def _regrouped(parts: Iterator[Rows]) -> Iterator[Rows]:
    """Join and cut rows, so that all groups but the last have `CHUNK_ROWS` rows."""
    waiting: list[Rows] = []
    for part in parts:
        waiting.append(part)
        while sum(map(len, waiting)) >= CHUNK_ROWS:
            whole = _joined(waiting)
            yield whole[:CHUNK_ROWS]
            waiting = [whole[CHUNK_ROWS:]]
    if any(map(len, waiting)):
        yield _joined(waiting)


def _joined(parts: Sequence[Rows]) -> Rows:
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    return pyarrow.concat_tables(parts)


def _texts(rows: Rows, name: str) -> list[str]:
    values = [row.get(name) for row in rows] if isinstance(rows, list) else rows[name].to_pylist()
    return ["" if text is None else text for text in values]


def _decoded(line: bytes, number: int, name: str) -> str:
    try:
        return line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{name}: line {number} is not UTF-8") from None
