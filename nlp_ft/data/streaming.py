"""Texts of files of any size, a chunk at a time: what lies in memory does not grow with the file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow.parquet
from datasets import Dataset, IterableDataset

from nlp_ft.data.sources import builder_of, expand, load_files, reading, refuse_unnamed_fields
from nlp_ft.errors import DataError

CHUNK_ROWS = 10_000
"""Rows that are sorted by length together: enough that a batch of them has next to no padding."""


def stream_texts(path: str, field: str, names: Sequence[str]) -> Iterator[list[list[str]]]:
    """The columns of text of file(s), a glob or a saved dataset folder, `CHUNK_ROWS` rows or fewer at a time.

    Args:
        path: where they lie; `load_files` reads the same ones.
        field: what errors name.
        names: the columns.

    Yields:
        One list of texts for each column; a missing text is an empty one.

    Raises:
        DataError: nothing there, formats mixed or unknown, no rows, a column missing, or content not of its format.
    """
    files = expand([path], field)
    if all(Path(file).is_dir() for file in files):
        yield from _texts(load_files(path, field), path, field, names)
        return
    builder, options = builder_of(files, field, names)
    with reading(files, builder, field):
        rows = datasets.load_dataset(builder, data_files=files, split="train", streaming=True, **options)
        assert isinstance(rows, IterableDataset)
        first = next(iter(rows.with_format("arrow").iter(1)), None)
        if first is None:
            raise DataError(f"{field} ({files[0]}) has no rows")
        refuse_unnamed_fields(first.column_names, files, builder, field)
        _require(names, first.column_names, path, field)
        # The other columns may change their types on the way.
        yield from _texts(rows.select_columns(list(names)), path, field, names)


def estimated_rows(path: str, field: str) -> int | None:
    """Rows of file(s), for a progress bar: too many where a text of a CSV has several lines; None for a folder.

    Raises:
        DataError: nothing there.
    """
    total = 0
    for file in map(Path, expand([path], field)):
        if file.is_dir():
            return None
        if file.suffix.lower() == ".parquet":
            total += pyarrow.parquet.read_metadata(file).num_rows
            continue
        with file.open("rb") as stream:
            total += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        total -= file.suffix.lower() in (".csv", ".tsv")
    return total


def _texts(rows: Dataset | IterableDataset, path: str, field: str, names: Sequence[str]) -> Iterator[list[list[str]]]:
    for table in rows.with_format("arrow").iter(CHUNK_ROWS):
        _require(names, table.column_names, path, field)
        yield [["" if text is None else str(text) for text in table[name].to_pylist()] for name in names]


def _require(names: Sequence[str], columns: Sequence[str], path: str, field: str) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(f"{field}: {path} has no column {missing[0]!r}; it has: {', '.join(columns)}")
