"""CSV and TSV, read strictly: every value is the text that stands in the file, and no line is guessed at.

What other readers guess (types, missing values, an index, fields that a row lacks) differs from reader to reader and
from file to file; a label `007` is then 7 in one of them.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow

from nlp_ft.data.unreadable import UnreadableError

LONGEST_TEXT = 10_000_000
"""Characters of one value; a quotation mark that is never closed would take the rest of the file into memory."""


def csv_columns(file: str, separator: str) -> list[str]:
    """The names in the header. Raises: UnreadableError, UnicodeDecodeError."""
    return next(_rows(file, separator), [])


def csv_tables(file: str, separator: str, columns: Sequence[str], num_rows: int) -> Iterator[pyarrow.Table]:
    """The columns as strings, so many rows or fewer at a time.

    A blank line is an empty text where there is one column, and no row where there are several.

    Raises:
        UnreadableError, UnicodeDecodeError: a row with another number of fields than the header, a quotation mark that
            is not closed or stands inside a quoted text, or a NUL byte.
    """
    rows = _rows(file, separator)
    header = next(rows)
    places = [header.index(name) for name in columns]
    while part := list(islice(rows, num_rows)):
        values = [pyarrow.array([row[place] for row in part], pyarrow.string()) for place in places]
        yield pyarrow.Table.from_arrays(values, names=list(columns))


def _rows(file: str, separator: str) -> Iterator[list[str]]:
    """The header, and rows that have as many fields."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_TEXT))
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(_without_nul(stream), delimiter=separator, strict=True)
        width, line = 0, 0
        try:
            for row in reader:
                if not row and width == 1:
                    row = [""]
                if len(row) != width and row:
                    if width:
                        raise UnreadableError(f"Expected {width} fields in line {reader.line_num}, saw {len(row)}")
                    width = len(row)
                if row:
                    yield row
                line = reader.line_num
        except csv.Error as error:
            raise UnreadableError(_quotes(str(error), line + 1)) from None


def _without_nul(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UnreadableError(f"line {number} holds a NUL byte; it is a binary file, or damaged")
        yield line


def _quotes(error: str, line: int) -> str:
    advice = 'a value with a quotation mark, a separator or a line break stands in "...", its own marks doubled'
    if "unexpected end of data" in error:
        return f"a quotation mark is opened in line {line} and never closed; {advice}"
    if "expected after" in error:
        return f"the row that begins in line {line} goes on after a closing quotation mark; {advice}"
    if "field limit" in error:
        return f"the row that begins in line {line} has a value of more than {LONGEST_TEXT:,} characters; {advice}"
    return f"the row that begins in line {line}: {error}"
