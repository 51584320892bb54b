"""What `nlp-ft predict` and `eval` do before the seconds of importing torch: they check paths and open inputs."""

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nlp_ft.errors import DataError

STDIN = "-"
ENDINGS = (".csv", ".jsonl", ".parquet")
"""Endings of files that predictions can be written to."""
FORMATS = ("csv", "tsv", "jsonl", "parquet")
"""Formats that `--file -` can read."""


def check_output(path: str, overwrite: bool) -> None:
    """Check, before a model is loaded, that predictions can be written to a file. Raises: DataError."""
    file = Path(path)
    if file.is_dir():
        raise DataError(f"--output: {path}: Is a directory")
    if file.suffix.lower() not in ENDINGS:
        raise DataError(f"--output: the file's name must end in {', '.join(ENDINGS)}, got {path}")
    if file.exists() and not overwrite:
        raise DataError(f"--output: {path} exists; choose another, or pass --overwrite to replace it")
    if not file.absolute().parent.is_dir():
        raise DataError(f"--output: {path}: No such file or directory")


def check_inputs(words: Sequence[str], file: str | None, file_format: str | None) -> None:
    """Check that exactly one place is named that inputs come from. Raises: DataError."""
    if bool(words) == bool(file):
        raise DataError("predict needs one of: texts or images on the command line, - for standard input, --file")
    if STDIN in words and len(words) > 1:
        raise DataError("- stands for standard input, and must be the only input")
    if (file == STDIN) != bool(file_format):
        raise DataError(f"--file - and --format belong together; the formats are {', '.join(FORMATS)}")


def standard_input() -> io.BufferedReader:
    """Open standard input for bytes, which are there as soon as they arrive."""
    return io.BufferedReader(io.FileIO(0, closefd=False))


@contextmanager
def readable_file(file: str | None, file_format: str | None) -> Iterator[str | None]:
    """Yield the path of a file; standard input is first copied to a temporary one, because a file is read twice.

    Args:
        file: a path, or `-`.
        file_format: the format of standard input, the ending of the copy.
    """
    if file != STDIN:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"standard_input.{file_format}"
        with copy.open("wb") as stream:
            shutil.copyfileobj(standard_input(), stream)
        yield str(copy)
