"""Reads the raw splits of a recipe from files, saved data sets and the Hub, before labels and tokenization."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, Features

from nlp_ft.data.columns import selected, unique_values, value_codes
from nlp_ft.data.file_advice import header_advice
from nlp_ft.data.labels import alike
from nlp_ft.data.row_files import FORMATS, RowFiles
from nlp_ft.data.saved_datasets import rows_of_saved, split_of_saved
from nlp_ft.data.unreadable import root_cause
from nlp_ft.errors import DataError, listed
from nlp_ft.hub import offline_if_unreachable
from nlp_ft.locations import PREFIX, resolve_location
from nlp_ft.recipe.sections import DataSection, is_share
from nlp_ft.recipe.text import TextDataSection, TextFilesSection
from nlp_ft.suggest import did_you_mean

SPLITS = ("train", "validation", "test")
Columns = Sequence[tuple[str, str]]
"""(key of the recipe, name of the column) for each column to read."""


def load_raw_splits(data: TextDataSection) -> dict[str, Dataset]:
    """Read the splits that the recipe names; a validation share of train is drawn later.

    Returns:
        Split name (`train`, `validation`, `test`) -> rows.

    Raises:
        DataError: a file, folder, split or column is missing or cannot be read, or a text column holds no texts.
    """
    columns = columns_of_texts(data)
    raw: dict[str, Dataset] = {}
    for split, field, where in named_splits(data):
        rows = rows_from_source(data, split, where, columns) if data.source else load_files(where, field, columns)
        check_columns(rows.column_names, columns, f"{field} ({where})")
        check_texts(rows.features, text_columns(data), f"{field} ({where})")
        if len(rows) == 0:
            raise DataError(f"{field} ({where}) has no rows")
        raw[split] = rows
    return raw


def named_splits(data: DataSection) -> Iterator[tuple[str, str, str | list[str]]]:
    """Yield name, recipe key and location of each split that a recipe names, except a validation share of train."""
    for split in SPLITS:
        where = getattr(data, split)
        if where is not None and not (split == "validation" and is_share(where)):
            yield split, f"data.{split}", where


def load_files(paths: str | Sequence[str], field: str, columns: Columns | None = None) -> Dataset:
    """Read the rows of files, globs or saved dataset folders.

    Args:
        paths: location or locations of the data.
        field: the recipe key or option that error messages name.
        columns: the columns to read from files; None reads all. Folders are read with all columns.

    Raises:
        DataError: nothing is there, formats are mixed or unknown, a column is missing, or a file's content does not
            match its format.
    """
    files = expand(paths, field)
    if all(Path(file).is_dir() for file in files):
        parts = [rows_of_saved(file, field) for file in files]
        try:
            return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        except (ValueError, TypeError) as error:
            raise DataError(f"{field}: the folders hold different columns: {root_cause(error)}") from None
    opened = RowFiles(files, field)
    if columns is None:
        return opened.load()
    check_columns(opened.columns, columns, field_with_files(field, paths))
    return opened.load([column for _, column in columns])


def text_columns(data: TextDataSection) -> list[str]:
    """List the text columns: one for single texts, two for pairs."""
    return [data.text] if isinstance(data.text, str) else data.text


def label_columns(data: TextDataSection) -> list[str]:
    """List the label columns: one, or one for each label or number."""
    return [data.label] if isinstance(data.label, str) else data.label


def rows_from_source(data: TextFilesSection, split: str, name: str | list[str], columns: Columns) -> Dataset:
    """Read the rows of one split out of `data.source`.

    Args:
        data: the section with `source`.
        split: name of the split, a key of the recipe.
        name: what the recipe says there: the split of the source, or the value in `split_column`.
        columns: the columns to read.

    Raises:
        DataError: the source, the split or a column is missing or cannot be read.
    """
    assert data.source is not None
    field = f"data.{split}"
    if not isinstance(name, str):
        raise DataError(f"{field} must be one split of data.source, got {name}")
    if data.split_column:
        rows = _with_split_column(data, data.split_column, f"{field} ({name})", columns)
        return _rows_of_value(rows, data.split_column, name, field)
    if isinstance(data.source, str) and not _is_local(data.source):
        return from_hub(data, data.source, name, field)
    folder = expand(data.source, "data.source")[0]
    if not Path(folder).is_dir():
        raise DataError(f"data.source: {folder} is a file; name its split_column, or give the files in data.train")
    return split_of_saved(folder, name, field)


def _with_split_column(data: TextFilesSection, column: str, where: str, columns: Columns) -> Dataset:
    assert data.source is not None
    files = expand(data.source, "data.source")
    if all(Path(file).is_dir() for file in files):
        return load_files(data.source, "data.source")
    opened = RowFiles(files, "data.source")
    _require_split_column(column, opened.columns)
    check_columns(opened.columns, columns, where)
    return opened.load([*(name for _, name in columns), column])


def from_hub(data: DataSection, source: str, name: str, field: str) -> Dataset:
    """Read one split of a data set on the Hugging Face Hub.

    Args:
        data: the section with `config` and `revision`.
        source: id of the data set on the Hub.
        name: name of the split.
        field: the recipe key that error messages name.

    Raises:
        DataError: the data set cannot be loaded.
    """
    with offline_if_unreachable() as problem:
        try:
            rows = datasets.load_dataset(source, data.config, revision=data.revision, split=name)
        except Exception as error:  # the Hub's client, its servers and the readers of formats raise many types
            advice = f"; {problem}; HF_HUB_OFFLINE=1 reads data sets of the cache at once" if problem else ""
            raise DataError(
                f"{field}: {source} is not a file or folder here, and loading it from the Hub failed: "
                f"{root_cause(error)}{advice}"
            ) from None
    assert isinstance(rows, Dataset)
    return rows


def _rows_of_value(rows: Dataset, column: str, value: str, field: str) -> Dataset:
    _require_split_column(column, rows.column_names)
    found = unique_values(rows, column)
    values = list(map(str, found))
    if value not in values:
        near = did_you_mean(value, values)
        raise DataError(f"{field}: no row has {value!r} in column {column!r}; it holds: {listed(values)}{near}")
    if spelled := next((group for group in alike(values) if value in group), None):
        raise DataError(
            f"{field}: column {column!r} holds {listed(map(repr, spelled))}, which differ in case, blanks or invisible "
            "characters alone, so rows of one would be left out; write them alike"
        )
    wanted = [index for index, name in enumerate(values) if name == value]
    return selected(rows, np.flatnonzero(np.isin(value_codes(rows, column, found), wanted)))


def _require_split_column(column: str, columns: Sequence[str]) -> None:
    if column not in columns:
        raise DataError(
            f"data.split_column: there is no column {column!r}; the columns are: {listed(columns)}"
            f"{did_you_mean(column, columns)}"
        )


def _is_local(source: str) -> bool:
    return source.startswith(PREFIX) or os.path.exists(source) or Path(source).suffix in FORMATS or "*" in source


def field_with_files(field: str, paths: str | Sequence[str]) -> str:
    """Name rows in an error message by recipe key or option and their files: `data.train (a.csv, b.csv)`."""
    return f"{field} ({paths if isinstance(paths, str) else listed(paths, 3)})"


def expand(paths: str | Sequence[str], field: str, may_repeat: bool = False) -> list[str]:
    """Resolve paths, `package:NAME/PATH` locations and globs to existing files and folders.

    A path that exists is taken as it is, even if it holds characters of a glob.

    Args:
        paths: the location, or several.
        field: the recipe key or option that error messages name.
        may_repeat: whether a file may come twice.

    Raises:
        DataError: nothing is there, it is a pipe or a device, which cannot be read twice, or a file is named twice.
    """
    files: list[str] = []
    for path in [paths] if isinstance(paths, str) else paths:
        location = resolve_location(path, DataError, field)
        found = [location] if os.path.exists(location) else sorted(glob.glob(location, recursive=True))
        if not found:
            hint = "; download it first, and name the file" if "://" in path else _near(location)
            raise DataError(f"{field}: there is no {path} (looked for {Path(location).absolute()}){hint}")
        for file in found:
            mode = os.stat(file).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise DataError(f"{field}: {file} is a pipe or a device; save its content as a file, and name that")
        files += dict.fromkeys(found)
    places = Counter(map(os.path.realpath, files))
    if not may_repeat and (twice := next((file for file in files if places[os.path.realpath(file)] > 1), None)):
        raise DataError(f"{field}: {twice} is named twice, so its rows would count twice; name it once")
    return files


def _near(location: str) -> str:
    folder = Path(location).parent
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)
    return did_you_mean(Path(location).name, names).replace("did you mean ", f"did you mean {folder}/")


def columns_of_texts(data: TextDataSection) -> Columns:
    """List the columns that a text recipe names, as (key of the recipe, name of the column).

    Raises:
        DataError: one column is named as text and as label.
    """
    both = next((name for name in label_columns(data) if name in text_columns(data)), None)
    if both is not None:
        raise DataError(f"data.text and data.label are one column, {both!r}; each needs its own")
    return [*(("text", text) for text in text_columns(data)), *(("label", name) for name in label_columns(data))]


def check_columns(found: Sequence[str], columns: Columns, where: str) -> None:
    """Check that all columns are among those found.

    Args:
        found: names of the columns that exist.
        columns: (key of the recipe, name) of the columns that are needed.
        where: name of the data in error messages.

    Raises:
        DataError: a column is missing.
    """
    for field, column in columns:
        if column not in found:
            raise DataError(
                f"{where}: data.{field} is {column!r}, but the columns are: {listed(found)}"
                f"{did_you_mean(column, found) or header_advice(found)}"
            )


def check_texts(features: Features, names: Sequence[str], where: str, key: str = "text") -> None:
    """Check that columns hold texts. Other values are refused, because nobody wrote the `str` of a list or of bytes.

    Args:
        features: the types of all columns.
        names: names of the columns that must hold texts.
        where: name of the data in error messages.
        key: the key of the recipe that names the columns.

    Raises:
        DataError: a column holds something other than text.
    """
    for name in names:
        held = getattr(features[name], "dtype", None) if isinstance(features[name], datasets.Value) else None
        if held not in ("string", "large_string", "string_view"):
            raise DataError(
                f"{where}: data.{key} is {name!r}, a column of {held or features[name]}, not of texts; write it as text"
            )
