"""Reads CoNLL files: a word and its columns a line, a blank line between rows, `-DOCSTART-` between documents.

Files that number the words of a row, as CoNLL-U and GermEval do, have comments and lines that are no word besides.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow
from datasets import Dataset

from nlp_ft.data.file_advice import looks_like_text
from nlp_ft.data.row_files import FORMATS, ROWS_OF_A_BATCH
from nlp_ft.data.stored import content_hash, stored_rows
from nlp_ft.errors import DataError, printable

ENDINGS = (".conll", ".conllu", ".bio", ".iob", ".txt")
OTHERS = FORMATS.keys() - {".tsv"}
"""Endings of files that are never CoNLL; all others are if their first lines look so."""
LINES_SEEN = 1000
DOCUMENT = "-DOCSTART-"
NAMES_OF_TABLES = {"text", "sentence", "label", "labels"}
"""A first line with two of these is the header of a table, even if its texts are of one word."""
TABLE = (
    "CoNLL files hold a word and its tag a line; a table of texts ends in .csv, or in .tsv if tabs divide its columns"
)
ABOUT_THE_ROW = re.compile(r"# ?\w+ = ")
"""Begins a line of CoNLL-U that describes a row, such as `# sent_id = 3`."""
TAG = re.compile(r"O|[BIES]-.+")
NUMBER = re.compile(r"[0-9]+")
NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
"""Numbers a line of CoNLL-U that is no word: one for several words (`3-4`), or one for none (`8.1`)."""
COLUMNS_OF_CONLL_U = 10
Columns = tuple[int, int]
"""Positions of the word and the tag on a line, from 0; -1 is the last."""
Row = tuple[list[str], list[str]]
"""The words of a row, and their tags."""


def is_conll(files: Sequence[str]) -> bool:
    """Whether all files end as CoNLL files do, or look so: lines of columns, and a blank line somewhere between."""
    return bool(files) and all(Path(file).suffix.lower() in ENDINGS or _looks_like_conll(file) for file in files)


def _looks_like_conll(file: str) -> bool:
    if Path(file).suffix.lower() in OTHERS or not Path(file).is_file():
        return False
    rows = _first_rows(file)
    widths = {len(cells) for row in rows for cells in row if cells[0] != DOCUMENT and not cells[0].startswith("#")}
    # Columns of files that number the words may hold remarks of several words.
    has_texts = not are_numbered(rows) and any(" " in cell.strip() for row in rows for cells in row for cell in cells)
    is_table = len(rows) > 1 and len(NAMES_OF_TABLES & set(map(str.lower, rows[0][0]))) > 1
    return len(rows) > 1 and len(widths) == 1 and min(widths) > 1 and not (has_texts or is_table)


def may_be_text(file: str) -> bool:
    """Whether a `.txt` file may be a text rather than words: it has several words a line, and no blank line between."""
    rows = _first_rows(file)
    return Path(file).suffix.lower() == ".txt" and len(rows) == 1 and any(len(cells) > 1 for cells in rows[0])


def usual_columns(file: str) -> Columns:
    """Where a file has the word and the tag: first and last, or last and first where the first column holds tags.

    CoNLL-U, which numbers the words, has the part of speech (UPOS) as its fourth column. Other numbered files, such as
    those of GermEval, have word and tag behind the number. Files of MIT (movies, restaurants) have the tag first.
    """
    rows = _first_rows(file)
    if not are_numbered(rows):
        first = {cells[0] for row in rows for cells in row if cells[0] != DOCUMENT}
        return (-1, 0) if first - {"O"} and all(map(TAG.fullmatch, first)) else (0, -1)
    width = next(len(cells) for row in rows for cells in row if NUMBER.fullmatch(cells[0]))
    return (1, 3) if width == COLUMNS_OF_CONLL_U else (1, 2)


def are_numbered(rows: Sequence[Sequence[Sequence[str]]]) -> bool:
    """Whether the first column of rows of lines counts 1, 2, ... in each row, comments and lines of no word aside."""
    counted = [[int(cells[0]) for cells in row if NUMBER.fullmatch(cells[0])] for row in rows]
    others = [cells for row in rows for cells in row if not NUMBER.fullmatch(cells[0])]
    is_alike = all(of_row == list(range(1, len(of_row) + 1)) for of_row in counted)
    has_more = any(len(of_row) > 1 for of_row in counted)
    return is_alike and has_more and all(map(_is_aside, others))


def _first_rows(file: str) -> list[list[list[str]]]:
    """Read the lines of the first rows, divided into cells; of several rows only those that are whole."""
    lines: list[str] = []
    with suppress(UnicodeDecodeError, OSError), open(file, encoding="utf-8-sig") as stream:
        lines = list(islice(stream, LINES_SEEN))
    rows: list[list[list[str]]] = [[]]
    for line in lines:
        if cells := _cells(line):
            rows[-1].append(cells)
        elif rows[-1]:
            rows.append([])
    is_cut = len(lines) == LINES_SEEN and len(rows) > 1
    return [row for row in (rows[:-1] if is_cut else rows) if row]


def load_conll(files: Sequence[str], field: str, columns: Columns | None, names: tuple[str, str]) -> Dataset:
    """Read all rows of CoNLL files into a dataset that is cached on the disk.

    Args:
        files: paths of the files.
        field: the recipe key or option that error messages name.
        columns: positions of the word and the tag; None takes `usual_columns` of each file.
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


def conll_words(files: Sequence[str], field: str, columns: Columns | None, num_rows: int) -> Iterator[list[list[str]]]:
    """Read the words of files, of which the tags may lack, at most `num_rows` rows at a time. Raises: DataError."""
    rows = (words for file in files for words, _ in conll_rows(file, field, columns, has_tags=False))
    while part := list(islice(rows, num_rows)):
        yield part


def conll_rows(file: str, field: str, columns: Columns | None, has_tags: bool = True) -> Iterator[Row]:
    """Read the rows of one file; without `has_tags`, the tags are the words. Raises: DataError: see `load_conll`."""
    columns = columns or usual_columns(file)
    columns = columns if has_tags else (columns[0], columns[0])
    is_numbered = are_numbered(_first_rows(file))
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
                if ABOUT_THE_ROW.match(line) or (is_numbered and _is_aside(cells)):
                    continue
                width = width or len(cells)
                where = f"{field}: {file}, line {number}"
                # Columns of CoNLL-U may hold remarks of several words.
                if not is_numbered and (text := next(filter(looks_like_text, cells), None)) is not None:
                    raise DataError(f"{where} holds a text, {printable(text[:60])}; {TABLE}")
                _check_line(cells, width, columns, where)
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


def _is_aside(cells: Sequence[str]) -> bool:
    """Whether a line of a numbered file is a comment, or numbers no word."""
    return cells[0].startswith("#") or NO_WORD.fullmatch(cells[0]) is not None


def _check_line(cells: Sequence[str], width: int, columns: Columns, where: str) -> None:
    if len(cells) != width:
        raise DataError(f"{where} has {len(cells)} column(s), and the lines before it have {width}; {TABLE}")
    is_one = columns[0] != columns[1] and columns[0] % width == columns[1] % width
    if is_one or not all(-width <= column < width for column in columns):
        raise DataError(
            f"{where} has {width} column(s), so data.conll_columns {list(columns)} names no word and tag in it; {TABLE}"
        )
    for column, what in zip(columns, ("word", "tag")):
        if not cells[column].strip():
            raise DataError(f"{where} has no {what} in column {column % width} (from 0)")


def _tables(rows: Iterator[Row], names: tuple[str, str]) -> Iterator[pyarrow.Table]:
    strings = pyarrow.list_(pyarrow.string())
    while part := list(islice(rows, ROWS_OF_A_BATCH)):
        columns = [pyarrow.array(column, strings) for column in zip(*part, strict=True)]
        yield pyarrow.Table.from_arrays(columns, names=list(names))
