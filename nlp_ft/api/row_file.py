"""Rows of the memory as Parquet files beside the run folder: a recipe names files, so it can be run again."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow
import pyarrow.parquet

from nlp_ft.errors import DataError


@dataclass(frozen=True)
class RowFile:
    """Rows as the bytes of a Parquet file, whose name holds a hash of them."""

    split: str
    content: pyarrow.Buffer

    @classmethod
    def of(cls, split: str, table: pyarrow.Table) -> "RowFile":
        """Make the bytes of a file."""
        stream = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, stream)
        return cls(split, stream.getvalue())

    @property
    def name(self) -> str:
        """The name of the file, such as `train-0123abcd.parquet`."""
        return f"{self.split}-{blake2b(self.content, digest_size=4).hexdigest()}.parquet"

    def write(self, folder: Path) -> None:
        """Write the file; one with the same name holds the same rows. Raises: DataError: the disk refuses it."""
        file = folder / self.name
        partial = file.with_suffix(".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(self.content)
            partial.replace(file)
        except OSError as error:
            raise DataError(f"output_dir: {file} cannot be written: {error.strerror or error}") from None
