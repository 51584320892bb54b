"""The run folder: a run writes into `<folder>.partial` and renames it at the end, so no run folder is half-written.

A folder is removed only after its replacement is on the disk, and only if nlp_ft made it: while a run is under way,
`run.json` marks the folder as a run's and holds the run's id.
"""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import dump_yaml
from nlp_ft.training import durable
from nlp_ft.training.lock import require_free
from nlp_ft.training.same_recipe import RECIPE, refuse_other_recipe

SUMMARY, EXPORT, MARK = "summary.json", "export.json", "run.json"
SUMMARY_TO_BE = "summary.json.writing"
"""Name of the summary until everything else is on the disk: a folder with a `summary.json` is complete."""


class RunFolder:
    """The folder that a run writes.

    Args:
        output_dir: name of the finished folder.
        resume: whether to continue a `.partial` folder if there is one.
        overwrite: whether to replace a finished run and to discard a `.partial` one.
        check: whether to call `check`; False leaves that to the caller.

    Raises:
        RunFolderError: the folder is in use, or nothing can be written there. The check itself writes nothing.
    """

    def __init__(self, output_dir: str, resume: bool = False, overwrite: bool = False, check: bool = True) -> None:
        self.final = Path(output_dir)
        if not self.final.name:
            raise RunFolderError(f"output_dir: {output_dir} cannot name a new folder; try runs/NAME")
        self.partial = self.final.with_name(self.final.name + ".partial")
        self.resume, self.overwrite = resume, overwrite
        self.run_id = ""
        self._is_mine = False
        """Whether this process made the `.partial` folder and may therefore discard it."""
        self._to_replace: tuple[int, int] | None = None
        if check:
            self.check()

    def check(self) -> None:
        """Check that the run may write there; nothing is written. Raises: RunFolderError."""
        self._check_renamable()
        require_free(self.final)
        self._check_taken()
        self._check_writable()

    @property
    def tag(self) -> str:
        """A short hash of the folder's path, to distinguish the files of different runs."""
        return blake2b(str(self.final.absolute()).encode(), digest_size=4).hexdigest()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints while the run is under way."""
        return self.partial / "checkpoints"

    def claim(self, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
        """Repair what a killed process left, and check the folder again; the caller holds the lock.

        Args:
            recipe: the recipe of this run.

        Returns:
            The summary if the run to resume turns out to be finished, else None.

        Raises:
            RunFolderError: the folder is in use, or was begun with another recipe.
        """
        self._put_back()
        self._check_taken()
        self._to_replace = _place_of(self.final) if self.overwrite else None
        goes_on = self.resume and self.partial.exists()
        if self.resume and (goes_on or self._is_untidied()):
            refuse_other_recipe(self.partial if goes_on else self.final, recipe)
        if self._is_untidied():
            self.run_id = run_id_of(self.final) or ""
            self._tidy()
            if self.resume and not goes_on:
                return _summary(self.final)
        if goes_on and (self.partial / SUMMARY).exists():
            self.run_id = run_id_of(self.partial) or ""
            self._put_in_place()
            return _summary(self.final)
        return None

    def create(self, recipe: Mapping[str, Any], bytes_needed: int) -> None:
        """Make the `.partial` folder, or continue an existing one.

        Args:
            recipe: the recipe to write into the folder, with its derived settings.
            bytes_needed: disk space that the run needs, in bytes.

        Raises:
            RunFolderError: the disk has less room than the run needs, or the folder was begun with another recipe.
        """
        if self.partial.exists() and not self.resume:
            _remove_run(self.partial)
        self._check_room(bytes_needed)
        begun = run_id_of(self.partial) if (self.partial / RECIPE).exists() else None
        if begun:
            refuse_other_recipe(self.partial, recipe)
            self.run_id = begun
            return
        self._is_mine = not self.partial.exists()
        self.run_id = uuid.uuid4().hex
        self.partial.mkdir(parents=True, exist_ok=True)
        durable.write_text(self.partial / MARK, json.dumps({"run_id": self.run_id}) + "\n")
        durable.write_text(self.partial / RECIPE, dump_yaml(recipe))
        durable.sync(self.partial.parent)

    def require_own(self) -> None:
        """Check that the folder is this run's. Raises: RunFolderError: it was removed, or belongs to another run."""
        if run_id_of(self.partial) != self.run_id:
            raise RunFolderError(
                f"output_dir: {self.partial} was removed or replaced while the run was writing it; the run is stopped"
            )

    def finish(self) -> None:
        """Rename the summary, then the folder; remove an earlier run after the new one is in place.

        Raises:
            RunFolderError: a folder has appeared under the run's name, or the run's own folder has gone.
        """
        self.require_own()
        durable.sync_tree(self.partial)
        durable.rename(self.partial / SUMMARY_TO_BE, self.partial / SUMMARY)
        self._put_in_place()

    def discard_if_useless(self) -> None:
        """After a failure, remove the folder if this process made it and it holds no checkpoint."""
        is_own = self._is_mine and run_id_of(self.partial) == self.run_id
        if is_own and not (self.partial / SUMMARY).exists() and not any(self.checkpoints.glob("step-*")):
            _remove_run(self.partial)

    def _put_in_place(self) -> None:
        if os.path.lexists(self.final) and _place_of(self.final) != self._to_replace:
            raise RunFolderError(
                f"output_dir: {self.final} has appeared while the run was going on, and is not replaced; the finished "
                f"run is in {self.partial}: move {self.final} away and pass --resume"
            )
        replaced = self._replaced_by(self.run_id)
        if self.final.exists():
            durable.rename(self.final, replaced)
        try:
            durable.rename(self.partial, self.final)
        except BaseException:
            if replaced.exists() and not self.final.exists():
                replaced.rename(self.final)
            raise
        self._tidy()

    def _tidy(self) -> None:
        """Remove what a finished run no longer needs; the mark goes last, since it shows that tidying is not done."""
        shutil.rmtree(self.final / "checkpoints", ignore_errors=True)
        shutil.rmtree(self._replaced_by(self.run_id), ignore_errors=True)
        (self.final / MARK).unlink(missing_ok=True)

    def _put_back(self) -> None:
        """Give the complete run its name back, if a process was killed between two renames."""
        run_id = run_id_of(self.partial)
        if run_id is None or self.final.exists() or not self._replaced_by(run_id).exists():
            return
        whole = self.partial if (self.partial / SUMMARY).exists() else self._replaced_by(run_id)
        durable.rename(whole, self.final)

    def _replaced_by(self, run_id: str) -> Path:
        return self.final.with_name(f"{self.final.name}.replaced-{run_id}")

    def _is_untidied(self) -> bool:
        return run_id_of(self.final) is not None and (self.final / SUMMARY).exists()

    def _check_renamable(self) -> None:
        for folder in (self.final, self.partial):
            if folder.is_symlink():
                raise RunFolderError(
                    f"output_dir: {folder} is a link to {folder.readlink()}, and a finished run cannot be renamed to a "
                    "link; name the folder itself, or a new one inside it"
                )
            if folder.is_dir() and os.path.ismount(folder):
                raise RunFolderError(
                    f"output_dir: {folder} is where a disk is mounted, and cannot be renamed; name a new folder "
                    f"inside it, such as {folder / 'run'}"
                )

    def _check_taken(self) -> None:
        if self.final.exists():
            self._check_finished_run()
        if not os.path.lexists(self.partial):
            return
        if not _is_unfinished_run(self.partial):
            raise RunFolderError(
                f"output_dir: {self.partial} is not an unfinished run (it holds no {MARK}) and is left as it is; "
                "move it away, or choose another output_dir"
            )
        if not (self.resume or self.overwrite):
            what = "a finished run that is not renamed" if (self.partial / SUMMARY).exists() else "an unfinished run"
            raise RunFolderError(
                f"output_dir: {self.partial} holds {what}; pass --resume to go on with it, or --overwrite to begin anew"
            )

    def _check_finished_run(self) -> None:
        if (self.final / EXPORT).exists():
            raise RunFolderError(f"output_dir: {self.final} holds an export, which no run replaces; choose another")
        is_run = (self.final / SUMMARY).exists()
        if not (self.overwrite or (self.resume and self._is_untidied() and not self.partial.exists())):
            what = "holds a finished run" if is_run else "exists and is not a run"
            advice = "choose another, or pass --overwrite to replace it"
            if self.resume and is_run and self.partial.exists():
                advice = f"pass --resume --overwrite to go on with {self.partial} and replace it then"
            raise RunFolderError(f"output_dir: {self.final} {what}; {advice}")
        if not is_run and (not self.final.is_dir() or any(self.final.iterdir())):
            raise RunFolderError(f"output_dir: {self.final} holds other things than a run and is not overwritten")

    def _existing_parent(self) -> Path:
        return next(parent for parent in self.final.absolute().parents if parent.exists())

    def _check_writable(self) -> None:
        parent = self._existing_parent()
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            raise RunFolderError(
                f"output_dir: nothing can be written in {parent}: {os.strerror(error.errno or 0)}"
            ) from None

    def _check_room(self, bytes_needed: int) -> None:
        free = shutil.disk_usage(self._existing_parent()).free
        if free < bytes_needed:
            raise RunFolderError(
                f"output_dir: {self.final} needs {bytes_needed / 2**20:,.0f} MiB for model and checkpoints, "
                f"but {free / 2**20:,.0f} MiB are free on that disk"
            )


def run_id_of(folder: Path) -> str | None:
    """Read the id of the run that writes the folder; None if there is none, or the mark cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((folder / MARK).read_text(encoding="utf-8"))["run_id"])
    return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into one clear error. Raises: RunFolderError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise RunFolderError(
            f"output_dir: cannot write in {folder}: {reason}; the last whole checkpoint, if there is one, is kept; "
            "fix the cause and pass --resume"
        ) from None


def _is_unfinished_run(folder: Path) -> bool:
    """Whether a folder has the mark of a run, or holds nothing but a half-written mark."""
    if not folder.is_dir():
        return False
    return run_id_of(folder) is not None or {file.name for file in folder.iterdir()} <= {f"{MARK}.writing"}


def _remove_run(folder: Path) -> None:
    """Remove a run's folder, the mark last: if this process is killed, the next one still knows it as a run's."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARK:
            entry.unlink()
    shutil.rmtree(folder)


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    return summary


def _place_of(path: Path) -> tuple[int, int] | None:
    """Identify a folder by device and inode, to detect another one under its name; None if there is none."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return None
