"""The run folder: filled under the name `<folder>.partial`, renamed when whole, never half-written."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nlp_ft.errors import RunFolderError

SUMMARY = "summary.json"


class RunFolder:
    """Where a run writes.

    Args:
        output_dir: the finished folder.
        resume: go on with a `.partial` folder if there is one.
        overwrite: replace a finished run, or throw away a `.partial` one.

    Raises:
        RunFolderError: the folder is taken, or nothing can be written there. Nothing is written by this check.
    """

    def __init__(self, output_dir: str, resume: bool = False, overwrite: bool = False) -> None:
        self.final = Path(output_dir)
        if not self.final.name:
            raise RunFolderError(f"output_dir: {output_dir} is no name for a new folder; try runs/NAME")
        self.partial = self.final.with_name(self.final.name + ".partial")
        self.resume = resume
        if self.final.exists() and not overwrite:
            what = "holds a finished run" if (self.final / SUMMARY).exists() else "exists and is no run"
            raise RunFolderError(f"output_dir: {self.final} {what}; choose another, or pass --overwrite to replace it")
        if self.final.exists() and not (self.final / SUMMARY).exists() and any(_entries(self.final)):
            raise RunFolderError(f"output_dir: {self.final} holds other things than a run and is not overwritten")
        if self.partial.exists() and not (resume or overwrite):
            raise RunFolderError(
                f"output_dir: {self.partial} holds an unfinished run; pass --resume to go on with it, "
                "or --overwrite to begin anew"
            )
        self._check_writable()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie while the run goes on."""
        return self.partial / "checkpoints"

    def create(self, recipe_yaml: str, bytes_needed: int) -> None:
        """Make the `.partial` folder, or check that the one there is of this recipe.

        Raises:
            RunFolderError: another recipe began it, or the disk has less room than the run needs.
        """
        if self.resume and self.partial.exists():
            self._check_same_recipe(recipe_yaml)
        else:
            shutil.rmtree(self.partial, ignore_errors=True)
        free = shutil.disk_usage(self._existing_parent()).free
        if free < bytes_needed:
            raise RunFolderError(
                f"output_dir: {self.final} needs {bytes_needed / 2**20:,.0f} MiB for model and checkpoints, "
                f"but {free / 2**20:,.0f} MiB are free on that disk"
            )
        self.partial.mkdir(parents=True, exist_ok=True)
        (self.partial / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")

    def finish(self) -> None:
        """Rename the whole folder to its final name; a run that was there goes when the new one is in place."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        if self.final.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f"{self.final.name}.replaced-", dir=self.final.parent))
            self.final.rename(replaced / "run")
            self.partial.rename(self.final)
            shutil.rmtree(replaced)
        else:
            self.partial.rename(self.final)

    def discard_if_useless(self) -> None:
        """After a failure: a partial folder without a checkpoint has nothing to resume from, so it goes."""
        if self.partial.exists() and not any(self.checkpoints.glob("step-*")):
            shutil.rmtree(self.partial, ignore_errors=True)

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

    def _check_same_recipe(self, recipe_yaml: str) -> None:
        before = self.partial / "recipe.yaml"
        if before.exists() and before.read_text(encoding="utf-8") != recipe_yaml:
            lines = set(before.read_text(encoding="utf-8").splitlines()) ^ set(recipe_yaml.splitlines())
            raise RunFolderError(
                f"--resume: {self.partial} was begun with another recipe; different: "
                f"{'; '.join(sorted(line.strip() for line in lines))}"
            )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the disk refuses, said as such. Raises: RunFolderError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise RunFolderError(
            f"output_dir: cannot write in {folder}: {reason}; the last whole checkpoint, if there is one, is kept: "
            "mend it and pass --resume"
        ) from None


class MetricsLog:
    """metrics.jsonl: one JSON object a line, each with its `step`; written by the main process.

    Args:
        file: where to write.
        enabled: False on every process but the main one.
        resumed_step: lines after this step are dropped: the resumed run writes them again.
    """

    def __init__(self, file: Path, enabled: bool, resumed_step: int) -> None:
        self.file, self.enabled = file, enabled
        if enabled:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= resumed_step]
            file.write_text("".join(kept) if resumed_step else "", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        if self.enabled:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else [folder]
