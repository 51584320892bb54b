"""Reading the raw splits of a recipe through `datasets`; no labels and no tokens yet."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, DatasetDict

from nlp_ft.data.columns import unique_values, value_codes
from nlp_ft.errors import DataError
from nlp_ft.locations import PREFIX, resolve_location
from nlp_ft.recipe_sections import DataSection, is_share
from nlp_ft.recipe_text import TextDataSection

# Texts such as "NA" or "null" are texts: pandas would read them as missing.
_CSV = {"keep_default_na": False, "na_filter": False}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", _CSV),
    ".tsv": ("csv", {**_CSV, "sep": "\t"}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}
ROWS_OF_A_BATCH = 10_000
"""Rows of a record batch on the disk. Opening a file reads the head of each batch, and the system maps 64 KB around it:
of batches of 1000 short texts, the default of `datasets`, that is the whole file."""
SPLITS = ("train", "validation", "test")


def load_raw_splits(data: TextDataSection) -> dict[str, Dataset]:
    """Split name -> rows, for the splits that the recipe names; a validation share is not drawn yet.

    Raises:
        DataError: a file, folder, split or column is missing or cannot be read.
    """
    raw: dict[str, Dataset] = {}
    for split in SPLITS:
        where = getattr(data, split)
        if where is None or (split == "validation" and is_share(where)):
            continue
        field = f"data.{split}"
        rows = _from_source(data, split, where) if data.source else load_files(where, field, text_columns(data))
        check_columns(rows, columns_of_texts(data), f"{field} ({where})")
        if len(rows) == 0:
            raise DataError(f"{field} ({where}) has no rows")
        raw[split] = rows
    return raw


def load_files(paths: str | Sequence[str], field: str, texts: Sequence[str] = ()) -> Dataset:
    """Rows of file(s), globs or saved dataset folders; `field` is named in errors, and `texts` are columns of text.

    Raises:
        DataError: nothing there, formats mixed or unknown, or content that is not of its format.
    """
    files = expand([paths] if isinstance(paths, str) else paths, field)
    if files and all(Path(file).is_dir() for file in files):
        return datasets.concatenate_datasets([_single(_load_folder(file, field), file, field) for file in files])
    builder, options = builder_of(files, field, texts)
    with reading(files, builder, field):
        rows = datasets.load_dataset(
            builder, data_files=files, split="train", writer_batch_size=ROWS_OF_A_BATCH, **options
        )
    assert isinstance(rows, Dataset)
    refuse_unnamed_fields(rows.column_names, files, builder, field)
    return rows


def builder_of(files: Sequence[str], field: str, texts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The builder of `datasets` that reads the files, and its options; `texts` are columns of text.

    Raises:
        DataError: formats mixed or unknown, or a file that is empty or binary.
    """
    suffixes = {Path(file).suffix.lower() for file in files}
    if len(suffixes) != 1 or not suffixes <= FORMATS.keys():
        raise DataError(f"{field}: files must all be one of {', '.join(FORMATS)}, got {', '.join(sorted(suffixes))}")
    _refuse_empty_and_binary(files, field)
    builder, options = FORMATS[suffixes.pop()]
    if builder == "csv":
        # Else pandas would guess that the text 007 is a number.
        options = {**options, "converters": dict.fromkeys(texts, str)}
    return builder, options


@contextmanager
def reading(files: Sequence[str], builder: str, field: str) -> Iterator[None]:
    """What the parser of a builder raises, as one error. Raises: DataError."""
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises as well
    try:
        yield
    except (OSError, DataError):
        raise
    except Exception as error:  # the builders raise whatever their parser raises
        if "corresponds to no data" in str(error):
            raise DataError(f"{field} ({files[0]}) has no rows") from None
        raise DataError(f"{field}: {files[0]} cannot be read as {builder}: {root_cause(error)}") from None
    finally:
        datasets.logging.set_verbosity(level)


def refuse_unnamed_fields(columns: Sequence[str], files: Sequence[str], builder: str, field: str) -> None:
    """Raises: DataError: pandas found more fields in the rows than the header names."""
    if "__index_level_0__" in columns:
        raise DataError(f"{field}: {files[0]} cannot be read as {builder}: its rows have more fields than its header")


def text_columns(data: TextDataSection) -> list[str]:
    """The column of single texts, or the two of pairs."""
    return [data.text] if isinstance(data.text, str) else data.text


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """`; did you mean X?` or nothing."""
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _from_source(data: TextDataSection, split: str, name: str | list[str]) -> Dataset:
    assert data.source is not None
    field = f"data.{split}"
    if not isinstance(name, str):
        raise DataError(f"{field} must be one split of data.source, got {name}")
    if data.split_column:
        rows = load_files(data.source, "data.source", text_columns(data))
        return _rows_of_value(rows, data.split_column, name, field)
    if isinstance(data.source, str) and not _is_local(data.source):
        return from_hub(data, data.source, name, field)
    sources = [data.source] if isinstance(data.source, str) else data.source
    folder = expand(sources, "data.source")[0]
    if not Path(folder).is_dir():
        raise DataError(f"data.source: {folder} is a file; name its split_column, or give the files in data.train")
    return split_of_saved(folder, name, field)


def split_of_saved(folder: str, name: str, field: str) -> Dataset:
    """One split of a folder written by `DatasetDict.save_to_disk`. Raises: DataError."""
    splits = _load_folder(folder, "data.source")
    if not isinstance(splits, DatasetDict) or name not in splits:
        found = list(map(str, splits)) if isinstance(splits, DatasetDict) else ["one unnamed split"]
        near = did_you_mean(name, found)
        raise DataError(f"{field}: {folder} has no split {name}; it has: {', '.join(found)}{near}")
    return splits[name]


def from_hub(data: DataSection, source: str, name: str, field: str) -> Dataset:
    """One split of a Hub data set. Raises: DataError."""
    try:
        rows = datasets.load_dataset(source, data.config, revision=data.revision, split=name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{field}: {source} is no file or folder here, and loading it from the Hub failed: {root_cause(error)}"
        ) from None
    assert isinstance(rows, Dataset)
    return rows


def _rows_of_value(rows: Dataset, column: str, value: str, field: str) -> Dataset:
    if column not in rows.column_names:
        raise DataError(
            f"data.split_column: there is no column {column!r}; the columns are: {', '.join(rows.column_names)}"
            f"{did_you_mean(column, rows.column_names)}"
        )
    found = unique_values(rows, column)
    values = list(map(str, found))
    if value not in values:
        near = did_you_mean(value, values)
        raise DataError(f"{field}: no row has {value!r} in column {column!r}; it holds: {', '.join(values)}{near}")
    wanted = [place for place, name in enumerate(values) if name == value]
    return rows.select(np.flatnonzero(np.isin(value_codes(rows, column, found), wanted)))


def _is_local(source: str) -> bool:
    return source.startswith(PREFIX) or Path(source).exists() or Path(source).suffix in FORMATS or "*" in source


def expand(paths: Sequence[str], field: str) -> list[str]:
    """The files and folders of paths, `package:NAME/PATH` and globs. Raises: DataError: there is none."""
    files: list[str] = []
    for path in paths:
        location = resolve_location(path, DataError)
        found = [location] if Path(location).exists() else sorted(glob.glob(location, recursive=True))
        if not found:
            raise DataError(f"{field}: there is no {path} (looked for {Path(location).absolute()}){_near(location)}")
        files += found
    return files


def _near(location: str) -> str:
    folder = Path(location).parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return did_you_mean(Path(location).name, names).replace("did you mean ", f"did you mean {folder}/")


def _load_folder(folder: str, field: str) -> Dataset | DatasetDict:
    try:
        return datasets.load_from_disk(folder)
    except FileNotFoundError:
        raise DataError(f"{field}: {folder} is a folder, but not one written by Dataset.save_to_disk") from None


def _single(rows: Dataset | DatasetDict, folder: str, field: str) -> Dataset:
    if isinstance(rows, DatasetDict):
        raise DataError(f"{field}: {folder} holds the splits {', '.join(rows)}; name the folder in data.source")
    return rows


def _refuse_empty_and_binary(files: Sequence[str], field: str) -> None:
    for file in files:
        with open(file, "rb") as stream:
            start = stream.read(4096)
        if not start.strip():
            raise DataError(f"{field}: {file} is empty")
        if b"\0" in start and Path(file).suffix != ".parquet":
            raise DataError(f"{field}: {file} is a binary file, not text")


def columns_of_texts(data: TextDataSection) -> list[tuple[str, str]]:
    """(key of the recipe, column) for each column that a text recipe names."""
    return [*(("text", text) for text in text_columns(data)), ("label", data.label)]


def check_columns(rows: Dataset, columns: Sequence[tuple[str, str]], where: str) -> None:
    """Raises: DataError: a column, given as (key of the recipe, column), is not among the rows'."""
    for field, column in columns:
        if column not in rows.column_names:
            raise DataError(
                f"{where}: data.{field} is {column!r}, but the columns are: {', '.join(rows.column_names)}"
                f"{did_you_mean(column, rows.column_names)}"
            )


def root_cause(error: BaseException) -> str:
    """The first line of what the innermost exception says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
