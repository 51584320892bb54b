"""One run folder has one writer: a lock beside the folder says who. It ends with its process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nlp_ft.errors import RunFolderError


def lock_file(folder: Path) -> Path:
    """Name the lock of a run folder."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of the run folder; afterwards remove the lock, and folders made for it.

    Raises:
        RunFolderError: another process has the lock, or none can be made there.
    """
    file = lock_file(folder)
    made = [parent for parent in file.absolute().parents if not parent.exists()]
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(folder) from None
    except OSError as error:
        raise RunFolderError(f"output_dir: {file} cannot be made: {error.strerror or error}") from None
    try:
        yield
    finally:
        # Removed while held: who opened it before gets a lock on a file without a name, which filelock gives back.
        with suppress(OSError):
            file.unlink()
        lock.release()
        with suppress(OSError):
            for parent in made:
                parent.rmdir()  # refused, and so ended, by the first that holds something


def require_free(folder: Path) -> None:
    """Check the lock. Raises: RunFolderError: another process writes the run folder."""
    if not lock_file(folder).exists():
        return
    lock = FileLock(lock_file(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _taken(folder) from None
    except OSError:  # a folder that cannot be written is said by whoever has to write
        return
    lock.release()


def _taken(folder: Path) -> RunFolderError:
    return RunFolderError(
        f"output_dir: {folder} is being written by another process at this moment ({lock_file(folder)} is held); "
        "wait for it, or choose another folder"
    )
