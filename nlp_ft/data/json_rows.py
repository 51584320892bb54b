"""Reads JSON Lines, or one JSON list of objects: a value keeps the type it is written with; a column has one type."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow

from nlp_ft.data.unreadable import UnreadableError
from nlp_ft.data.words.spans import with_names

ROWS_FOR_NAMES = 1000
"""The keys of this number of rows are the columns; later rows may lack some of them, but bring no new ones."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
_TYPES = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}


def json_columns(file: str) -> list[str]:
    """Read the keys of the first rows, in their order.

    Raises:
        UnreadableError: one of these rows is not an object in JSON.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return list(dict.fromkeys(name for _, row in islice(_rows(file), ROWS_FOR_NAMES) for name in row))


def json_tables(
    file: str, columns: Sequence[str], num_rows: int, kinds: dict[str, type]
) -> Iterator[tuple[pyarrow.Table, list[dict[str, Any]]]]:
    """Read columns in tables of at most `num_rows` rows; a key that a row lacks gives a missing value.

    Args:
        file: a file of objects, one a line or all in one list.
        columns: the keys to read.
        num_rows: most rows of a table.
        kinds: column -> Python type of its values. The function adds to it; passed from file to file, it makes them
            agree.

    Yields:
        A table, in which a column without any value yet has the type `null`; and the whole objects of its rows.

    Raises:
        UnreadableError: the content is not JSON, a row is not an object, a key occurs twice in a row, or a value has
            another type than those before it.
        UnicodeDecodeError: the file is not UTF-8.
    """
    rows = _rows(file)
    while part := list(islice(rows, num_rows)):
        values = [_array(name, part, kinds) for name in columns]
        yield pyarrow.Table.from_arrays(values, names=list(columns)), [row for _, row in part]


def _array(name: str, part: Sequence[tuple[str, dict[str, Any]]], kinds: dict[str, type]) -> pyarrow.Array:
    values = [with_names(row.get(name)) for _, row in part]
    for (where, _), value in zip(part, values):
        if value is not None and type(value) is not kinds.setdefault(name, type(value)):
            held, before = _WORDS.get(type(value), "an object"), _WORDS.get(kinds[name], "an object")
            advice = "; write all as 1.0, or all as 1" if {type(value), kinds[name]} == {int, float} else ""
            raise UnreadableError(f"{where}: {name!r} is {held}, and {before} in the rows before it{advice}")
    try:
        return pyarrow.array(values, _TYPES.get(kinds[name]) if name in kinds else pyarrow.null())
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
        where = f"{part[0][0]} to {part[-1][0]}"
        reason = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else str(error).splitlines()[0]
        raise UnreadableError(f"{where}: {name!r} holds a value that cannot be stored: {reason}") from None


def _rows(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read each row as (its line or number for messages, its object)."""
    with open(file, encoding="utf-8-sig") as stream:
        start = stream.read(1)
        while start.isspace():
            start = stream.read(1)
        stream.seek(0)
        if start == "[":
            for number, row in enumerate(_parsed(stream.read(), "the list")):
                yield f"row {number}", _object(row, f"row {number}")
            return
        for number, line in enumerate(stream, 1):
            if line.strip() == "{":
                raise UnreadableError(
                    f"line {number} begins an object that goes on in further lines; write an object a line, or all "
                    "rows in one list, [...]"
                )
            if line.strip():
                yield f"line {number}", _object(_parsed(line, f"line {number}"), f"line {number}")


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UnreadableError(f'{where} is {_WORDS.get(type(row), "nothing")}, not an object such as {{"text": ...}}')
    return row


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise UnreadableError(f"{where} is nested too deeply") from None
    except UnreadableError as error:
        raise UnreadableError(f"{where}: {error}") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise UnreadableError(f"{where}: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise UnreadableError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found
