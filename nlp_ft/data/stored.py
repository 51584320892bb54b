"""Rows kept on the disk for the next run: found by the content they were made of, and read only if they are whole.

Beside each lies a record of size and hash; what does not fit it (cut, flipped, or written by somebody else) is made
anew. Neither a file's name nor its times have a part in it.
"""

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b, file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets import Dataset, Features
from datasets.fingerprint import Hasher

from nlp_ft.errors import DataError

FORMAT = 1
"""To be raised when the same content makes other rows than before."""
LIBRARIES = ("datasets", "pyarrow", "tokenizers", "transformers")


def content_hash(files: Iterable[str | Path]) -> str:
    """Of the bytes of files, in their order."""
    total = blake2b(digest_size=16)
    for file in files:
        total.update(_digest(file))
    return total.hexdigest()


def stored_rows(key: str, tables: Callable[[], Iterator[pyarrow.Table]]) -> Dataset | None:
    """The rows of tables, kept under a key; they are made only where they are not kept, or not whole.

    Args:
        key: tells the content and all that made rows of it.
        tables: all of one schema.

    Returns:
        The rows; None where there are none.

    Raises:
        DataError: they cannot be written.
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
    # Its own would depend on times and places.
    rows._fingerprint = stem.name.removeprefix("rows-")
    return rows


def stored_map(rows: Dataset, function: Callable[..., Any], kept: Mapping[str, Any], **options: Any) -> Dataset:
    """`rows.map(function, batched=True)`, kept for the next run.

    Args:
        rows: the rows; their fingerprint tells their content.
        function: of a batch of rows.
        kept: its keyword arguments, part of the key.
        options: those of `map` on which the result does not depend, and `features`.

    Raises:
        DataError: they cannot be written.
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
    """Whether the record's files are all there with its sizes and hashes."""
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
    """A name of this process's own, renamed to the file's when all is written, and removed after an error."""
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    """What goes wrong with the disk, with the setting that names another one. Raises: DataError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EFBIG):
            raise
        raise DataError(
            f"{datasets.config.HF_DATASETS_CACHE}: {os.strerror(error.errno)}; rows are kept there while they are "
            "trained on; make room, or set HF_DATASETS_CACHE to another folder"
        ) from None
