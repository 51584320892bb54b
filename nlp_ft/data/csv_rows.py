"""Reads CSV and TSV strictly: every value is the text in the file, and nothing is guessed.

Other readers guess types, missing values, an index, and fields that a row lacks. Their guesses differ from reader to
reader and from file to file: a label `007` becomes 7 in one of them.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow

from nlp_ft.data.file_advice import header_advice, plain_marks_advice
from nlp_ft.data.unreadable import UnreadableError

QUOTING = 'write a value with a quotation mark, a separator or a line break in "...", and double its own marks'
LONGEST_TEXT = 10_000_000
"""Most characters of one value; without a limit, an unclosed quotation mark would read the whole file into memory."""


def csv_columns(file: str, separator: str) -> list[str]:
    """Read the names in the header of a file; an empty list if the file has no line.

    Raises:
        UnreadableError: the header cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return next(_rows(file, separator), [])


def csv_tables(file: str, separator: str, columns: Sequence[str] | None, num_rows: int) -> Iterator[pyarrow.Table]:
    """Read columns as strings, in tables of at most `num_rows` rows.

    A blank line is an empty text in a file of one column, and no row in a file of several.

    Args:
        file: path of the file, whose first line is the header.
        separator: character between fields.
        columns: names of the columns to read; None reads all, even two of one name.
        num_rows: most rows of a table.

    Raises:
        UnreadableError: a row has another number of fields than the header, a quotation mark is not closed or is not
            doubled inside a quoted text, or there is a NUL byte.
        UnicodeDecodeError: the file is not UTF-8.
    """
    rows = _rows(file, separator)
    header = next(rows)
    positions = range(len(header)) if columns is None else [header.index(name) for name in columns]
    while part := list(islice(rows, num_rows)):
        values = [pyarrow.array([row[position] for row in part], pyarrow.string()) for position in positions]
        yield pyarrow.Table.from_arrays(values, names=[header[position] for position in positions])


def _rows(file: str, separator: str) -> Iterator[list[str]]:
    """Read the header and then the rows, all with the same number of fields."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_TEXT))
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(_without_nul(stream), delimiter=separator, strict=True)
        header: list[str] = []
        line = 0
        try:
            for row in reader:
                if not row and len(header) == 1:
                    row = [""]
                header = header or row
                if row and len(row) != len(header):
                    advice = header_advice(header, file) or f"; {QUOTING}{plain_marks_advice(file)}"
                    raise UnreadableError(
                        f"Expected {len(header)} fields in line {reader.line_num}, saw {len(row)}{advice}"
                    )
                if reader.line_num > line + 1 and separator == "\t" and _are_rows(row):
                    raise UnreadableError(
                        f"a quotation mark makes lines {line + 1} to {reader.line_num} one row, though each has "
                        f"{len(row)} fields; {QUOTING}{plain_marks_advice(file)}"
                    )
                if row:
                    yield row
                line = reader.line_num
        except csv.Error as error:
            raise UnreadableError(_quotes(str(error), line + 1) + plain_marks_advice(file)) from None


def _are_rows(row: Sequence[str]) -> bool:
    """Whether each line of a row that spans several lines has as many fields as the row itself."""
    return len(row) > 1 and {line.count("\t") for line in "\t".join(row).split("\n")} == {len(row) - 1}


def _without_nul(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UnreadableError(f"line {number} holds a NUL byte; the file is binary or damaged")
        yield line


def _quotes(error: str, line: int) -> str:
    if "unexpected end of data" in error:
        return f"a quotation mark is opened in line {line} and never closed; {QUOTING}"
    if "expected after" in error:
        return f"the row that begins in line {line} goes on after a closing quotation mark; {QUOTING}"
    if "field limit" in error:
        return f"the row that begins in line {line} has a value of more than {LONGEST_TEXT:,} characters; {QUOTING}"
    return f"the row that begins in line {line}: {error}"
