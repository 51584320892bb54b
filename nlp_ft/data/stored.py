"""Caches rows on the disk for the next run: found by the content they were made from, and read only if they are whole.

A record beside each file holds its size and hash. A file that does not match its record (because it is cut, damaged, or
written by somebody else) is made anew. Names and times of files do not count.
"""

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets import Dataset, Features
from datasets.fingerprint import Hasher

from nlp_ft.errors import DataError

FORMAT = 4
"""Part of every key: raise it when a change of the code makes other rows of the same content, or refuses it."""
ROWS_OF_A_TABLE = 1000
LIBRARIES = ("datasets", "pyarrow", "tokenizers", "transformers")


def content_hash(files: Iterable[str | Path]) -> str:
    """Hash the bytes of files, in their order."""
    total = blake2b(digest_size=16)
    for file in files:
        total.update(_digest(file))
    return total.hexdigest()


def stored_rows(key: str, tables: Callable[[], Iterator[pyarrow.Table]]) -> Dataset | None:
    """Return the rows of tables from the cache; make and cache them if they are not there, or not whole.

    Args:
        key: identifies the content of the rows and everything that made them.
        tables: makes the tables, all with one schema.

    Returns:
        The rows; None if there are none.

    Raises:
        DataError: the rows cannot be written.
    """
    stem = _folder() / f"rows-{Hasher.hash([FORMAT, key])}"
    file = stem.with_suffix(".arrow")
    if not _is_whole(stem):
        made = tables()
        first = next(made, None)
        if first is None:
            return None
        with _writing(), _renamed(file) as partial:
            _write(partial, first, made)
        _record(stem, [file])
    rows = Dataset.from_file(str(file))
    # The fingerprint that `from_file` gives depends on the file's path and times.
    rows._fingerprint = stem.name.removeprefix("rows-")
    return rows


def tables_of(rows: Iterator[dict[str, Any]], schema: pyarrow.Schema) -> Iterator[pyarrow.Table]:
    """Make tables of rows as they come, for `stored_rows`."""
    while part := list(islice(rows, ROWS_OF_A_TABLE)):
        yield pyarrow.Table.from_pylist(part, schema)


def stored_map(rows: Dataset, function: Callable[..., Any], kept: Mapping[str, Any], **options: Any) -> Dataset:
    """Return `rows.map(function, batched=True)`, cached for the next run.

    Args:
        rows: the rows; their fingerprint identifies their content.
        function: makes columns of a batch of rows.
        kept: keyword arguments of the function; they are part of the cache's key.
        options: `features`, and those options of `Dataset.map` that do not change the result.

    Raises:
        DataError: the rows cannot be written.
    """
    of_libraries = [version(name) for name in LIBRARIES]
    named = f"{function.__module__}.{function.__qualname__}"
    key = Hasher.hash([FORMAT, rows._fingerprint, named, dict(kept), str(options.get("features")), of_libraries])
    stem = _folder() / f"map-{key}"
    if not _is_whole(stem):
        for file in stem.parent.glob(f"{stem.name}*"):
            file.unlink(missing_ok=True)
    with _writing():
        mapped = rows.map(
            function,
            batched=True,
            fn_kwargs=dict(kept),
            cache_file_name=str(stem.with_suffix(".arrow")),
            load_from_cache_file=True,
            new_fingerprint=key,
            **options,
        )
    if not stem.with_suffix(".json").exists():
        # Another process that finds no record yet removes the files and makes them anew; here they are open.
        with suppress(FileNotFoundError):
            _record(stem, sorted({Path(file["filename"]) for file in mapped.cache_files}))
    return mapped


def _folder() -> Path:
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "nlp_ft"
    with _writing():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(file: Path, first: pyarrow.Table, others: Iterator[pyarrow.Table]) -> None:
    schema = Features.from_arrow_schema(first.schema).arrow_schema
    with pyarrow.OSFile(str(file), "wb") as stream, pyarrow.ipc.new_stream(stream, schema) as writer:
        writer.write_table(first.cast(schema))
        for table in others:
            writer.write_table(table.cast(schema))


def _is_whole(stem: Path) -> bool:
    """Whether all files of the record exist with the recorded sizes and hashes."""
    try:
        recorded = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(recorded) and all(
            os.path.getsize(stem.parent / name) == size and _digest(stem.parent / name).hex() == digest
            for name, (size, digest) in recorded.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _record(stem: Path, files: Sequence[Path]) -> None:
    recorded = {file.name: [file.stat().st_size, _digest(file).hex()] for file in files}
    with _writing(), _renamed(stem.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(recorded), encoding="utf-8")


def _digest(file: str | Path) -> bytes:
    with open(file, "rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).digest()


@contextmanager
def _renamed(file: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which is renamed to `file` at the end and removed after an error."""
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    """Turn errors of the disk inside the `with` block into a `DataError` that names the setting to change."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EFBIG):
            raise
        raise DataError(
            f"{datasets.config.HF_DATASETS_CACHE}: {os.strerror(error.errno)}; rows are stored there while they are "
            "trained on; make room, or set HF_DATASETS_CACHE to another folder"
        ) from None
