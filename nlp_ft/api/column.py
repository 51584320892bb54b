"""Names, types and values of columns: turns them into Arrow, or says which of their rows no file can hold."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

import pyarrow

from nlp_ft.data.words.spans import with_names
from nlp_ft.errors import DataError, listed

Names = str | list[str]
"""One column, or several."""
MISSING = ("NAType", "NaTType")
"""Kinds of missing values of pandas, besides None and NaN."""
MOST_SHOWN = 20
"""Labels whose ids an error message shows."""
ONE_KIND = "make them one kind, as in df[{name!r}].astype(str)"


def column_of(values: Any, name: str, what: str) -> pyarrow.Array:
    """Turn a column into Arrow; decimal numbers become fractions.

    Args:
        values: a list, an array or a column of pandas.
        name: name of the column.
        what: name of the rows in error messages.

    Raises:
        DataError: its values are of several kinds, or of an odd one; the message names the first row of each.
    """
    try:
        if getattr(values, "ndim", 1) > 1:
            values = list(values)
        if hasattr(values, "sparse"):
            values = values.sparse.to_dense()
        if _hold_spans(values):
            values = [with_names(value) for value in values]
        if type(values).__module__.startswith(("numpy", "pandas")):
            column = pyarrow.array(values, from_pandas=True)
        else:
            column = pyarrow.array(
                [one.item() if isinstance(one, Number) and hasattr(one, "item") else one for one in values]
            )
    except UnicodeEncodeError:
        row = next(row for row, value in enumerate(values) if _is_broken(value))
        raise DataError(
            f"{what}: row {row} (from 0) of column {name!r} holds half of a surrogate pair; write it in valid Unicode"
        ) from None
    except (pyarrow.ArrowException, OverflowError, TypeError, AttributeError) as error:
        raise DataError(f"{what}: column {name!r} holds values {_kinds(values, name, error)}") from None
    return column.cast(pyarrow.float64()) if pyarrow.types.is_decimal(column.type) else column


def single_names(names: Sequence[str], what: str, odd: dict[str, str]) -> list[str]:
    """List the columns that occur once; the others go into `odd`."""
    counts = Counter(names)
    odd |= {name: f"{what} has the column {name!r} twice; rename one" for name in sorted(counts) if counts[name] > 1}
    return [name for name in names if counts[name] == 1]


def plain_table(table: pyarrow.Table, what: str, odd: dict[str, str]) -> pyarrow.Table:
    """Take the columns of an Arrow table that occur once; texts of the type that Polars has become plain ones."""
    kept = table.select(single_names(table.column_names, what, odd))
    for position, one in enumerate(kept.schema):
        if (kind := _without_view(one.type)) != one.type:
            kept = kept.set_column(position, one.name, kept.column(position).cast(kind))
    return kept


def _without_view(kind: pyarrow.DataType) -> pyarrow.DataType:
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        inner = _without_view(kind.value_type)
        return kind if inner == kind.value_type else pyarrow.large_list(inner)
    return pyarrow.large_string() if pyarrow.types.is_string_view(kind) else kind


def kept_columns(table: pyarrow.Table, named: Iterable[str]) -> pyarrow.Table:
    """Keep the named columns, or all where none of them is there; categories become their values."""
    wanted = [name for name in dict.fromkeys(named) if name in table.column_names]
    kept = table.select(wanted) if wanted else table
    for position, one in enumerate(kept.schema):
        if pyarrow.types.is_dictionary(one.type):
            kept = kept.set_column(position, one.name, kept.column(position).cast(one.type.value_type))
    return kept.replace_schema_metadata(None)


def whole_labels(rows: pyarrow.Table, label: Any, task: str) -> pyarrow.Table:
    """Write labels such as 1.0, which pandas makes of whole numbers where some are missing, as whole numbers."""
    if task != "text_classification" or label not in rows.column_names:
        return rows
    place, values = rows.column_names.index(label), rows.column(label)
    if not pyarrow.types.is_floating(values.type):
        return rows
    try:
        return rows.set_column(place, label, values.cast(pyarrow.int64()))
    except pyarrow.ArrowInvalid:
        return rows


def refuse_other_names(names: Sequence[str], known: Sequence[str], column: str, what: str) -> None:
    """Check that the ids of a `ClassLabel` mean what they mean elsewhere.

    Args:
        names: the names of the ids.
        known: the names that the ids have there.
        column: name of the column.
        what: both, in the words of the error message.

    Raises:
        DataError: an id has another name.
    """
    if any(name != other for name, other in zip(names, known)):
        ids = {name: number for number, name in enumerate(known)}
        shown = ids if len(ids) <= MOST_SHOWN else "{NAME: ID, ...}"
        raise DataError(
            f"column {column!r}: {what} give the ids other names, {listed(names)} and {listed(known)}, so one id would "
            f"mean two labels; write it with the same ids: align_labels_with_mapping({shown}, {column!r})"
        )


def _kinds(values: Iterable[Any], name: str, error: Exception) -> str:
    """Say of which kinds the values are, each with its first row; or why one cannot be held."""
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        for one in value if isinstance(value, list | tuple) else [value]:
            if not (one is None or (isinstance(one, float) and math.isnan(one)) or type(one).__name__ in MISSING):
                first.setdefault(type(one).__name__, row)
    if len(first) > 1:
        found = ", ".join(f"{kind} (row {row})" for kind, row in first.items())
        return f"of several kinds: {found}, from 0; {ONE_KIND.format(name=name)}"
    return f"that no file can hold: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _hold_spans(values: Any) -> bool:
    """Whether the first row that is not empty holds spans written as (start, end, label)."""
    first = next((value for value in values if isinstance(value, list | tuple) and value), None)
    return first is not None and with_names(first) is not first


def _is_broken(value: Any) -> bool:
    """Whether a text, or one in a list or dict, cannot be written as UTF-8."""
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def as_names(names: Names) -> list[str]:
    """List one name or several."""
    return [names] if isinstance(names, str) else list(names)


def is_text(kind: pyarrow.DataType) -> bool:
    """Whether a type is that of texts."""
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))
