"""Keeps the predictions of finished chunks in a folder beside the output, from which a stopped prediction goes on.

`OUTPUT.partial` holds `prediction.json`, which says what is predicted, and a file for each finished chunk. The output
is written from the input and these files, so its bytes are the same however often it was begun. Imports no torch.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow

from nlp_ft.errors import RunFolderError
from nlp_ft.prediction.disk import disk_named
from nlp_ft.screen import note
from nlp_ft.training import durable

MARK = "prediction.json"
CHUNKS = "chunk-*.arrow"
DIGEST_BYTES = 16


def partial_folder(output: str) -> Path:
    """Return the folder that holds the finished chunks of an output."""
    return Path(f"{output}.partial")


def check_partial(output: str, resume: bool, overwrite: bool) -> None:
    """Check that a prediction may begin or go on. Raises: RunFolderError: another one is unfinished there."""
    folder = partial_folder(output)
    if not os.path.lexists(folder):
        return
    if not _is_prediction(folder):
        raise RunFolderError(
            f"--output: {folder} is not an unfinished prediction (it holds no {MARK}) and is left as it is; move it "
            "away, or choose another output"
        )
    if not (resume or overwrite) and any(folder.glob(CHUNKS)):
        raise RunFolderError(
            f"--output: {folder} holds an unfinished prediction; pass --resume to go on with it, or --overwrite to "
            "begin anew"
        )


class Parts:
    """The finished chunks of one output.

    Args:
        output: path of the output.
        identity: what the predictions depend on; a file of another identity is not read.
    """

    def __init__(self, output: str, identity: Mapping[str, Any]) -> None:
        self._output, self.folder = output, partial_folder(output)
        self._key = json.dumps(identity, sort_keys=True)

    def begin(self, mark: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make the folder with its mark where no chunk is finished yet; return the mark that it was begun with.

        Raises:
            RunFolderError: the mark cannot be read.
        """
        self.folder.mkdir(exist_ok=True)
        file = self.folder / MARK
        if not self.count():
            # Not `write_text` to the mark itself: several shards may begin at once.
            begun = self.folder / f"{uuid.uuid4().hex}.json"
            durable.write_text(begun, json.dumps(mark, indent=2) + "\n")
            durable.rename(begun, file)
            durable.sync(self.folder.parent)
        try:
            found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return {name: dict(found[name]) for name in mark}
        except (ValueError, TypeError, KeyError):
            raise RunFolderError(f"--resume: {file} is damaged; pass --overwrite to begin anew") from None

    def keep(self, chunk: int, columns: pyarrow.Table) -> pyarrow.Table:
        """Store the columns of a chunk; return them as `read` does. Raises: DiskError."""
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, columns.schema) as writer:
            writer.write_table(columns)
        content = sink.getvalue()
        writing = self.folder / f"{uuid.uuid4().hex}.writing"
        with disk_named(self._output):
            with writing.open("xb") as stream:
                stream.write(self._digest(chunk, content))
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            durable.rename(writing, self._file(chunk))
        return _table(content)

    def read(self, chunk: int) -> pyarrow.Table | None:
        """Read the columns of a chunk; None if they are not there, not whole, or of another chunk or prediction."""
        try:
            stored = pyarrow.py_buffer(self._file(chunk).read_bytes())
        except FileNotFoundError:
            return None
        content = stored[DIGEST_BYTES:]
        if stored[:DIGEST_BYTES].to_pybytes() != self._digest(chunk, content):
            note(f"{self._file(chunk)} is damaged or of another chunk; its rows are predicted again")
            return None
        return _table(content)

    def count(self) -> int:
        """Count the files of chunks."""
        return sum(1 for _ in self.folder.glob(CHUNKS))

    def remove(self) -> None:
        """Remove the folder, the mark last: if this process is killed, the next one still knows it as its own."""
        with suppress(FileNotFoundError):
            for file in self.folder.iterdir():
                if file.name != MARK:
                    file.unlink()
            shutil.rmtree(self.folder)

    def _file(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:06d}.arrow"

    def _digest(self, chunk: int, content: pyarrow.Buffer) -> bytes:
        digest = blake2b(f"{chunk} {self._key}".encode(), digest_size=DIGEST_BYTES)
        digest.update(content)
        return digest.digest()


def _table(content: pyarrow.Buffer) -> pyarrow.Table:
    return pyarrow.ipc.open_stream(content).read_all()


def _is_prediction(folder: Path) -> bool:
    """Whether a folder has the mark of a prediction, or holds nothing but what is there before it."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return (folder / MARK).is_file() or all(
        file.name.endswith((".json", ".json.writing", ".lock")) for file in folder.iterdir()
    )
