"""The folder of an export: it is written under another name beside, and put in place once it is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nlp_ft.errors import NlpFtError, RunFolderError
from nlp_ft.models.loading import reason_of
from nlp_ft.training import durable
from nlp_ft.training.lock import held
from nlp_ft.training.run_folder import EXPORT


def require_free_place(place: Path, run: Path, overwrite: bool) -> None:
    """Check that an export of a run can be written. Raises: RunFolderError."""
    is_export = (place / EXPORT).exists()
    if place.is_symlink():
        raise RunFolderError(f"--output: {place} is a link to {place.readlink()}; name the folder itself")
    if place.exists() and not (overwrite and is_export):
        found = "exists" if is_export else "exists and is no export"
        hint = ", or pass --overwrite to replace it" if is_export else ""
        raise RunFolderError(f"--output: {place} {found}; choose another{hint}")
    if not place.absolute().parent.is_dir():
        raise RunFolderError(f"--output: {place}: No such file or directory")
    if (run / "config.json").exists() and place.resolve().is_relative_to(run.resolve()):
        raise RunFolderError(f"--output: {place} is inside the run, which stays as it is; name a folder beside it")
    partial = _partial(place)
    if os.path.lexists(partial) and not (partial / EXPORT).exists():
        raise RunFolderError(
            f"--output: {partial} exists, such as of an unfinished run, and is left as it is; choose another --output"
        )


@contextmanager
def written_whole(place: Path, run: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `place` at the end of the block; after any failure it is gone.

    Raises:
        RunFolderError: `place` is taken, or cannot be written.
    """
    require_free_place(place, run, overwrite)
    partial = _partial(place)
    try:
        with held(place, "--output"):
            # What a killed process left.
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir()
                durable.write_text(partial / EXPORT, "{}\n")
                yield partial
                durable.sync_tree(partial)
                _put_in_place(partial, place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(place, error) from None


@contextmanager
def writing_graph(place: Path) -> Iterator[None]:
    """Turn whatever an engine raises as it converts and writes into one error. Raises: RunFolderError."""
    try:
        yield
    except NlpFtError:
        raise
    except Exception as error:  # the libraries raise what they like
        raise _cannot_write(place, error) from None


def _put_in_place(partial: Path, place: Path) -> None:
    replaced = place.with_name(f"{place.name}.replaced.partial")
    shutil.rmtree(replaced, ignore_errors=True)
    if place.exists():
        durable.rename(place, replaced)
    try:
        durable.rename(partial, place)
    except BaseException:
        if replaced.exists() and not place.exists():
            replaced.rename(place)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _partial(place: Path) -> Path:
    return place.with_name(f"{place.name}.partial")


def _cannot_write(place: Path, error: Exception) -> RunFolderError:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else reason_of(error)
    return RunFolderError(f"--output: {place} cannot be written: {reason}; nothing was written")
