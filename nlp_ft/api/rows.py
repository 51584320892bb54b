"""Takes rows as Python holds them: DataFrame, data set, lists, dict of columns. Their columns are read in column.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow

from nlp_ft.api.column import column_of, plain_table, single_names
from nlp_ft.data.sources import SPLITS
from nlp_ft.errors import DataError, listed
from nlp_ft.suggest import did_you_mean

FORMS = (
    "a DataFrame, a data set of `datasets`, a dict of columns, a list of dicts, a list of (text, label) pairs, a tuple "
    "of two lists (texts, labels), or the name(s) of files"
)


PAIR = "text=['text_a', 'text_b']"


@dataclass(frozen=True)
class Table:
    """Rows in the memory.

    Args:
        rows: the columns that a file can hold.
        class_names: column -> names of its ids, for columns that hold a `ClassLabel`, or lists of it.
        odd: the columns that no file can hold, each with what is wrong; it is an error only if they are needed.
    """

    rows: pyarrow.Table
    class_names: Mapping[str, list[str]] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)


Split = Table | str | list[str]
"""A split: rows in the memory, or names of files."""


@dataclass
class Splits:
    """The splits that were given, and remarks on what was left out of them."""

    by_name: dict[str, Split]
    remarks: list[str] = field(default_factory=list)


def splits_of(data: Any, validation: Any, test: Any, text: str | Sequence[str], label: str | Sequence[str]) -> Splits:
    """Read what `fit` was given as data; a `DatasetDict` brings several splits.

    Args:
        data: the rows of train.
        validation: the rows of validation; None or False for none, or a share such as `10%`, which is left out.
        test: the rows of test; None for none.
        text: name of the text column, or of two, for rows without names.
        label: name of the label column, or of one for each label or number, for rows without names.

    Raises:
        DataError: something is no data, or its columns cannot be read.
    """
    found: dict[str, Split] = {}
    remarks: list[str] = []
    given = {"train": data, "validation": validation, "test": test}
    if isinstance(data, Mapping) and data and all(_is_dataset(rows) for rows in data.values()):
        given, remarks = _of_dataset_dict(data, given)
    for name, rows in given.items():
        if rows is None or rows is False or (name == "validation" and _is_share(rows)):
            continue
        if name == "validation" and isinstance(rows, int | float):
            share = f"; did you mean '{rows:.0%}'?" if 0 < rows < 1 else ""
            raise DataError(f"validation must be rows, False, or a share of train such as '20%'; got {rows}{share}")
        read = read_rows(rows, text, label, "data" if name == "train" else name)
        if name == "test" and isinstance(read, Table) and _is_unlabelled(read, label):
            remarks.append(f"test: left out, because column {label!r} of it holds no labels")
        else:
            found[name] = read
    return Splits(found, remarks)


def read_rows(data: Any, text: str | Sequence[str], label: str | Sequence[str], what: str) -> Split:
    """Read rows in any of the forms that `fit` takes; names of files stay names.

    Raises:
        DataError: the value has none of these forms, or a column cannot be read.
    """
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, list) and data and all(isinstance(item, Path) or _is_file_name(item) for item in data):
        return [str(item) for item in data]
    odd: dict[str, str] = {}
    columns = _named_columns(data, what, odd)
    if columns is None:
        table = _from_lists(data, text, label, what)
    else:
        table = plain_table(columns, what, odd) if isinstance(columns, pyarrow.Table) else _table(columns, what, odd)
    if table.num_rows == 0 and not odd:
        raise DataError(f"{what} has no rows")
    return Table(table, _class_names(data), odd)


def is_table(data: Any) -> bool:
    """Whether rows have columns with names: a DataFrame, a data set, a dict of columns, or a list of dicts."""
    has_arrow = hasattr(data, "__arrow_c_stream__") and (hasattr(data, "columns") or hasattr(data, "column_names"))
    return has_arrow or _has_columns(data) or _is_list_of_dicts(data)


def require_column(table: Table, name: str, keyword: str | None, what: str) -> None:
    """Check that rows have a column, which a keyword of `fit` may name.

    Raises:
        DataError: they have not, or no file can hold it.
    """
    if name in table.odd:
        raise DataError(table.odd[name])
    names = table.rows.column_names
    if name not in names:
        advice = f"name the column with {keyword}=..." if keyword else "rename one of them"
        near = did_you_mean(name, names) or f"; {advice}"
        raise DataError(f"{what} has no column {name!r}; its columns are: {listed([*names, *table.odd])}{near}")


def _named_columns(data: Any, what: str, odd: dict[str, str]) -> pyarrow.Table | dict[str, Any] | None:
    """Find the columns of rows whose columns have names, None where they have none; repeated ones go into `odd`."""
    try:
        if _is_dataset(data):
            return data.with_format("arrow")[:]
        if isinstance(data, pyarrow.Table):
            return data
        if _is_frame(data):
            return _of_frame(data, what, odd)
        # One column alone has no names.
        if hasattr(data, "__arrow_c_stream__") and getattr(data, "ndim", 2) > 1:
            return pyarrow.table(data)
    except pyarrow.ArrowException as error:
        raise DataError(f"{what}: {str(error).splitlines()[0]}") from None
    if isinstance(data, Mapping):
        return _of_dict(data, what)
    if _is_list_of_dicts(data):
        rows = [{str(name): value for name, value in row.items()} for row in data]
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    return None


def _of_frame(data: Any, what: str, odd: dict[str, str]) -> dict[str, Any]:
    """Take the columns of a DataFrame of pandas. Raises: DataError: its columns have names of several levels."""
    if data.columns.nlevels > 1:
        raise DataError(
            f"{what} has column names of {data.columns.nlevels} levels, such as {data.columns[0]!r}; give each column "
            "one name, as in df.columns = [...]"
        )
    data = data.rename(columns=str)
    return {name: data[name] for name in single_names(list(data.columns), what, odd)}


def _of_dict(data: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Take the columns of a dict. Raises: DataError: they are no lists of one length."""
    form = f"{what} is a dict, whose columns must be lists of one length"
    if tables := [str(name) for name, values in data.items() if _has_columns(values)]:
        raise DataError(
            f"{form}; {tables[0]!r} is a table of its own: pass each split by itself, as in fit(d['train'], "
            "validation=d['validation'], test=d['test'])"
        )
    for name, values in data.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise DataError(f"{form}; {str(name)!r} is {type(values).__name__} {values!r:.60}")
    lengths = {str(name): len(values) for name, values in data.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{form}; got lengths {lengths}")
    return {str(name): values for name, values in data.items()}


def _table(columns: Mapping[str, Any], what: str, odd: dict[str, str]) -> pyarrow.Table:
    """Turn columns into Arrow; those that cannot be turned go into `odd`."""
    found = {}
    for name, values in columns.items():
        try:
            found[name] = column_of(values, name, what)
        except DataError as error:
            odd[name] = str(error)
    return pyarrow.table(found)


def _from_lists(data: Any, text: str | Sequence[str], label: str | Sequence[str], what: str) -> pyarrow.Table:
    """Read a tuple (texts, labels), or a list of (text, label) pairs; the text of a pair model is itself a pair."""
    if not isinstance(data, list | tuple) or not data:
        found = "nothing in it" if isinstance(data, list | tuple) else type(data).__name__
        once = (
            "; make a list of it first: list(...)" if hasattr(data, "__iter__") and not hasattr(data, "__len__") else ""
        )
        raise DataError(f"{what} must be {FORMS}; got {found}{once}")
    if any(_has_columns(part) for part in data):
        raise DataError(
            f"{what} is a {type(data).__name__} of tables; give one table, as pandas.concat makes it, or each split by "
            "itself: fit(train, validation=..., test=...)"
        )
    if _is_two_lists(data):
        texts, labels = (list(part) for part in data)
    elif all(isinstance(row, list | tuple) and len(row) == 2 for row in data):
        texts, labels = [row[0] for row in data], [row[1] for row in data]
    else:
        raise DataError(f"{what} must be {FORMS}; got a {type(data).__name__} of {type(data[0]).__name__}")
    if len(texts) != len(labels):
        raise DataError(f"{what} holds {len(texts)} texts and {len(labels)} labels; each text needs one label")
    if isinstance(text, str) and all(_is_pair(one) for one in texts) and not any(map(_is_list, labels)):
        raise DataError(f"{what} holds pairs of texts; name a column for each, as in {PAIR}")
    if all(isinstance(one, Mapping) and "entities" in one for one in labels):
        labels = [one["entities"] for one in labels]  # as in training data of spaCy 2
    columns = _by_name(texts, text, "text", what) | _by_name(labels, label, "label", what)
    return pyarrow.table({name: column_of(values, name, what) for name, values in columns.items()})


def _by_name(values: list[Any], names: str | Sequence[str], keyword: str, what: str) -> dict[str, list[Any]]:
    """Part values into the columns of several names. Raises: DataError: a row has another number of values."""
    if isinstance(names, str):
        return {names: values}
    for row, parts in enumerate(values):
        if isinstance(parts, str) or not hasattr(parts, "__len__") or len(parts) != len(names):
            form = "a pair" if keyword == "text" else f"a list of {len(names)}"
            number = {2: "two"}.get(len(names), str(len(names)))
            raise DataError(
                f"{what}: the {keyword} of row {row} (from 0) must be {form}, as {keyword} names {number} columns"
            )
    return {name: [parts[place] for parts in values] for place, name in enumerate(names)}


def _of_dataset_dict(data: Mapping[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Take the splits of a `DatasetDict`; splits that are given beside it go before its own."""
    if "train" not in data:
        raise DataError(f"data has no split 'train'; it has: {listed(data)}; give one of them, as in data[NAME]")
    own = {name: data[name] for name in SPLITS if name in data}
    left = [name for name in data if name not in SPLITS]
    remarks = [f"splits left out of data: {listed(left)}"] if left else []
    return {**given, **{name: rows for name, rows in own.items() if name == "train" or given[name] is None}}, remarks


def _class_names(data: Any) -> dict[str, list[str]]:
    """List the names of the ids of each column of a data set that has some."""
    found = {}
    for name, feature in (data.features if _is_dataset(data) else {}).items():
        if names := getattr(getattr(feature, "feature", feature), "names", None):
            found[name] = list(names)
    return found


def _is_unlabelled(table: Table, label: str | Sequence[str]) -> bool:
    """Whether every label is missing, or -1 among ids of classes, as in the test splits of GLUE."""
    if not isinstance(label, str) or label not in table.rows.column_names:
        return False
    column = table.rows.column(label)
    if pyarrow.types.is_nested(column.type):
        return False
    return set(column.unique().to_pylist()) <= ({None, -1} if label in table.class_names else {None})


def _is_dataset(data: Any) -> bool:
    """Whether this is a data set of `datasets` whose rows are all there, unlike those of a stream."""
    names = ("with_format", "features", "__len__")
    return type(data).__module__.startswith("datasets.") and all(hasattr(data, name) for name in names)


def _is_frame(data: Any) -> bool:
    """Whether this is a DataFrame of pandas."""
    return hasattr(data, "to_parquet") and hasattr(data, "iloc")


def _has_columns(data: Any) -> bool:
    return isinstance(data, Mapping | pyarrow.Table) or _is_dataset(data) or _is_frame(data)


def _is_list_of_dicts(data: Any) -> bool:
    return isinstance(data, Sequence) and bool(data) and all(isinstance(row, Mapping) for row in data)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def _is_pair(text: Any) -> bool:
    return isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(one, str) for one in text)


def _is_file_name(item: Any) -> bool:
    return isinstance(item, str) and Path(item).suffix.lower() in (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def _is_share(value: Any) -> bool:
    return isinstance(value, str) and value.rstrip().endswith("%")


def _is_two_lists(data: Sequence[Any]) -> bool:
    """Whether these are two lists (texts, labels); two lists of two could also be two pairs, so these are pairs."""
    if len(data) != 2 or any(isinstance(part, str) or not hasattr(part, "__len__") for part in data):
        return False
    is_array = any(not isinstance(part, list | tuple) for part in data)
    return is_array or isinstance(data, tuple) or len(data[0]) != 2
