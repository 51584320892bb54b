"""Names the file of predictions in the error of a disk that refuses it."""

from collections.abc import Iterator
from contextlib import contextmanager

from nlp_ft.errors import DataError


class DiskError(DataError):
    """The disk refuses to take predictions; unlike other errors in data, it may take them later."""


@contextmanager
def disk_named(path: str) -> Iterator[None]:
    """Name the file in the error of a full disk. Raises: DiskError."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"--output: {path}: {error.strerror or error}; it holds what it held before") from None
