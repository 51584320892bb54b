"""Writes files so that a crash or power cut leaves them whole or not at all: write under another name, sync, rename."""

import os
from hashlib import blake2b, file_digest
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the content of a file, or the list of files in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Call `sync` for everything in a folder, from the inside out."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(root, name))
        sync(Path(root))


def rename(source: Path, target: Path) -> None:
    """Rename within a folder, and wait until the disk has it."""
    source.rename(target)
    sync(target.parent)


def write_text(file: Path, text: str) -> None:
    """Write a whole file as UTF-8."""
    writing = file.with_name(f"{file.name}.writing")
    with writing.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    rename(writing, file)


def content_hash(file: Path) -> str:
    """Hash the bytes of a file. Raises: OSError."""
    with file.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()
