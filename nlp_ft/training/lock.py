"""Gives a run folder one writer, by a lock file next to the folder. The lock ends with its process, even if killed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nlp_ft.errors import FolderInUseError, RunFolderError

FIELD = "output_dir"
"""The key of a recipe that names a run folder."""


def lock_file(folder: Path) -> Path:
    """Return the path of the lock file of a run folder; `folder` is the final name, without `.partial`."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def held(folder: Path, field: str = FIELD) -> Iterator[None]:
    """Keep other processes out of the run folder; afterwards remove the lock, and folders made for it.

    Args:
        folder: the folder.
        field: the key or option that names it, for the error message.

    Raises:
        FolderInUseError: another process has the lock.
        RunFolderError: the lock file cannot be made.
    """
    file = lock_file(folder)
    made = [parent for parent in file.absolute().parents if not parent.exists()]
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if not file.exists():  # such as in /proc, where filelock takes any refusal for a lock that is held
            raise RunFolderError(f"{field}: {file} cannot be made; choose a folder that can be written") from None
        raise _taken(folder, field) from None
    except OSError as error:
        raise RunFolderError(f"{field}: {file} cannot be made: {error.strerror or error}") from None
    try:
        yield
    finally:
        # Removed while held: a process that opened it before locks a file without a name, which filelock releases.
        with suppress(OSError):
            file.unlink()
        lock.release()
        with suppress(OSError):
            for parent in made:
                parent.rmdir()  # the first folder that is not empty raises and ends the loop


def require_free(folder: Path, field: str = FIELD) -> None:
    """Check that no process writes the run folder; see `held`. Raises: FolderInUseError: one does."""
    if not lock_file(folder).exists():
        return
    lock = FileLock(lock_file(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(folder, field) from None
    except OSError:  # whoever writes there reports a folder that cannot be written
        return
    lock.release()


def _taken(folder: Path, field: str) -> FolderInUseError:
    return FolderInUseError(
        f"{field}: {folder} is being written by another process at this moment ({lock_file(folder)} is held); "
        "wait for it, or choose another folder"
    )
