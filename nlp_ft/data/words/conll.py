"""Reads CoNLL files: a word and its columns a line, a blank line between rows, `-DOCSTART-` between documents."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
from datasets import Dataset

from nlp_ft.data.file_advice import looks_like_text
from nlp_ft.data.row_files import ROWS_OF_A_BATCH
from nlp_ft.data.stored import content_hash, stored_rows
from nlp_ft.errors import DataError, printable

ENDINGS = (".conll", ".bio", ".iob", ".txt")
DOCUMENT = "-DOCSTART-"
TABLE = (
    "CoNLL files hold a word and its tag a line; a table of texts ends in .csv, or in .tsv if tabs divide its columns"
)
ABOUT_THE_ROW = re.compile(r"# ?\w+ = ")
"""Begins a line of CoNLL-U that describes a row, such as `# sent_id = 3`."""
Row = tuple[list[str], list[str]]
"""The words of a row, and their tags."""


def is_conll(files: Sequence[str]) -> bool:
    """Whether all files end as CoNLL files do."""
    return bool(files) and all(Path(file).suffix.lower() in ENDINGS for file in files)


def load_conll(files: Sequence[str], field: str, columns: tuple[int, int], names: tuple[str, str]) -> Dataset:
    """Read all rows of CoNLL files into a dataset that is cached on the disk.

    Args:
        files: paths of the files.
        field: the recipe key or option that error messages name.
        columns: positions of the word and the tag on a line, from 0; -1 is the last.
        names: names of the columns in the result.

    Raises:
        DataError: a file is empty, is not UTF-8, or has a line without the columns.
    """
    rows = stored_rows(
        f"conll {columns} {names} {content_hash(files)}",
        lambda: _tables((row for file in files for row in conll_rows(file, field, columns)), names),
    )
    if rows is None:
        raise DataError(f"{field} ({files[0]}) has no rows")
    return rows


def conll_rows(file: str, field: str, columns: tuple[int, int]) -> Iterator[Row]:
    """Read the rows of one file. Raises: DataError: see `load_conll`."""
    words: list[str] = []
    tags: list[str] = []
    width, number = 0, 0
    try:
        with open(file, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                cells = _cells(line)
                if not cells or cells[0] == DOCUMENT:
                    if words:
                        yield words, tags
                    words, tags = [], []
                    continue
                if ABOUT_THE_ROW.match(line):
                    continue
                width = width or len(cells)
                _check_line(cells, width, columns, f"{field}: {file}, line {number}")
                words.append(cells[columns[0]])
                tags.append(cells[columns[1]])
    except UnicodeDecodeError:
        what = f"{field}: {file}: after line {number}, a line is not UTF-8; save the file as UTF-8"
        raise DataError(f"{what}; {TABLE}") from None
    if words:
        yield words, tags


def _cells(line: str) -> list[str]:
    """Divide a line at its tabs, or where it has none at its blanks; [] for a blank line."""
    if not line.strip():
        return []
    return line.rstrip("\r\n").split("\t") if "\t" in line.rstrip() else line.split()


def _check_line(cells: Sequence[str], width: int, columns: tuple[int, int], where: str) -> None:
    if (text := next((cell for cell in cells if looks_like_text(cell)), None)) is not None:
        raise DataError(f"{where} holds a text, {printable(text[:60])}; {TABLE}")
    if len(cells) != width:
        raise DataError(f"{where} has {len(cells)} column(s), and the lines before it have {width}; {TABLE}")
    if not all(-width <= column < width for column in columns) or columns[0] % width == columns[1] % width:
        raise DataError(
            f"{where} has {width} column(s), so data.conll_columns {list(columns)} names no word and tag in it; {TABLE}"
        )
    for column, what in zip(columns, ("word", "tag")):
        if not cells[column].strip():
            raise DataError(f"{where} has no {what} in column {column % width} (from 0)")


def _tables(rows: Iterator[Row], names: tuple[str, str]) -> Iterator[pyarrow.Table]:
    strings = pyarrow.list_(pyarrow.string())
    part: list[Row] = []

    def table() -> pyarrow.Table:
        columns = [pyarrow.array(column, strings) for column in zip(*part, strict=True)]
        return pyarrow.Table.from_arrays(columns, names=list(names))

    for row in rows:
        part.append(row)
        if len(part) == ROWS_OF_A_BATCH:
            yield table()
            part.clear()
    if part:
        yield table()
