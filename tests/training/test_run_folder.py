"""The folder of a run: one writer, nothing of anybody else's removed, and a whole run at its place whatever happens."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from nlp_ft.errors import RunFolderError
from nlp_ft.training import lock
from nlp_ft.training.run_folder import SUMMARY_TO_BE, RunFolder

RECIPE = {"seed": 0, "optimizer": {"lr": 0.1}, "output_dir": "run"}
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
watched: list[Path] = []
"""The folder that is copied before each change below it, and where the copies go; an audit hook cannot be removed."""


def copy_before_changes(event: str, arguments: tuple[object, ...]) -> None:
    if not watched or event not in CHANGES or (event == "open" and arguments[1] in ("r", "rb")):
        return
    folder, copies = watched
    watched.clear()
    try:
        shutil.copytree(folder, copies / f"{len(list(copies.iterdir())):03d}")
    finally:
        watched.extend([folder, copies])


@contextmanager
def copied(folder: Path, copies: Path) -> Iterator[None]:
    """Inside, what a kill -9 would leave is copied before each change on the disk."""
    copies.mkdir()
    if copy_before_changes not in hooked:
        sys.addaudithook(copy_before_changes)
        hooked.append(copy_before_changes)
    watched.extend([folder, copies])
    try:
        yield
    finally:
        watched.clear()


hooked: list[object] = []


def begin(place: Path, resume: bool = False, overwrite: bool = False, content: str = "new") -> RunFolder:
    """An unfinished run with a checkpoint."""
    folder = RunFolder(str(place), resume, overwrite)
    folder.claim(RECIPE)
    folder.create(RECIPE, 0)
    (folder.partial / "model").write_text(content)
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    return folder


def finish(folder: RunFolder) -> None:
    text = (folder.partial / "model").read_text()
    (folder.partial / SUMMARY_TO_BE).write_text(json.dumps({"model": text}))
    folder.finish()


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def whole(place: Path) -> str:
    """The content of a run that is whole at its place, with nothing but what a run leaves."""
    assert names(place) == {"model", "recipe.yaml", "summary.json"}
    text = (place / "model").read_text()
    assert json.loads((place / "summary.json").read_text()) == {"model": text}
    return text


def test_killed_at_any_change_of_an_overwrite_one_whole_run_is_at_its_place_after_the_next_start(
    tmp_path: Path,
) -> None:
    place = tmp_path / "work/run"
    finish(begin(place, content="old"))
    with copied(tmp_path / "work", tmp_path / "copies"):
        finish(begin(place, overwrite=True))
    copies = sorted((tmp_path / "copies").iterdir())
    found = []
    for copy in copies:
        next_start = RunFolder(str(copy / "run"), resume=True, overwrite=True)
        next_start.check()
        summary = next_start.claim(RECIPE)
        found.append(whole(copy / "run"))
        assert summary == ({"model": "new"} if found[-1] == "new" else None)
        assert names(copy) <= {"run", "run.partial"}
        if summary is None and (copy / "run.partial/checkpoints/step-00000001").exists():
            next_start.create(RECIPE, 0)
            finish(next_start)
            assert whole(copy / "run") == "new"
            assert names(copy) == {"run"}
    assert len(copies) > 15
    assert found == sorted(found, reverse=True)  # the old one, and from one moment on the new one
    assert set(found) == {"old", "new"}


def test_a_last_rename_that_fails_loses_nothing_and_is_done_by_the_next_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda self, target: _refuse(self, Path(target), tmp_path / "run"))
        with pytest.raises(OSError, match="refused"):
            finish(folder)
    folder.discard_if_useless()
    assert (tmp_path / "run.partial/model").read_text() == "new"
    assert (tmp_path / "run.partial/checkpoints/step-00000001").exists()
    with pytest.raises(RunFolderError, match="holds a finished run that is not renamed; pass --resume"):
        RunFolder(str(tmp_path / "run"))
    assert RunFolder(str(tmp_path / "run"), resume=True).claim(RECIPE) == {"model": "new"}
    assert whole(tmp_path / "run") == "new"
    assert names(tmp_path) == {"run"}


def _refuse(source: Path, target: Path, refused: Path) -> Path:
    if target == refused:
        raise OSError("refused")
    shutil.move(source, target)
    return target


def test_a_link_or_a_mount_under_the_name_of_the_run_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").symlink_to("nowhere")
    with pytest.raises(RunFolderError, match="run is a link to nowhere, and a finished run cannot be renamed"):
        RunFolder(str(tmp_path / "run"), overwrite=True)
    (tmp_path / "mount").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "mount")
    with pytest.raises(RunFolderError, match="mount is where a disk is mounted"):
        RunFolder(str(tmp_path / "mount"), overwrite=True)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True}])
def test_a_partial_folder_of_somebody_else_is_refused_and_stays(options: dict[str, bool], tmp_path: Path) -> None:
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial/thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"run\.partial is not an unfinished run \(it holds no run\.json\)"):
        RunFolder(str(tmp_path / "run"), **options)
    assert names(tmp_path / "run.partial") == {"thesis.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_under_the_name_of_the_run_is_not_deleted(overwrite: bool, tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", overwrite=overwrite)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="run has appeared while the run was going on, and is not replaced"):
        finish(folder)
    folder.discard_if_useless()
    assert names(tmp_path / "run") == {"thesis.txt"}
    shutil.rmtree(tmp_path / "run")
    assert RunFolder(str(tmp_path / "run"), resume=True).claim(RECIPE) == {"model": "new"}
    assert whole(tmp_path / "run") == "new"


def test_a_run_whose_folder_is_removed_or_replaced_is_stopped(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    shutil.rmtree(folder.partial)
    with pytest.raises(RunFolderError, match="was removed or replaced while the run was writing it"):
        folder.finish()
    begin(tmp_path / "run")
    with pytest.raises(RunFolderError, match="was removed or replaced"):
        folder.finish()
    folder.discard_if_useless()
    assert (tmp_path / "run.partial/model").exists()


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_start_is_told_that_the_first_lives_and_removes_nothing(
    options: dict[str, bool], tmp_path: Path
) -> None:
    with lock.held(tmp_path / "run"):
        begin(tmp_path / "other")  # whose lock is another
        folder = RunFolder(str(tmp_path / "run"), check=False)
        folder.create(RECIPE, 0)
        with pytest.raises(RunFolderError, match=r"is being written by another process at this moment \(.*run\.lock"):
            RunFolder(str(tmp_path / "run"), **options)
        with pytest.raises(RunFolderError, match="another process"), lock.held(tmp_path / "run"):
            pass
    assert names(tmp_path) == {"run.partial", "other.partial"}


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from nlp_ft.training import lock
held = lock.held(Path({str(tmp_path / "run")!r}))
held.__enter__()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert names(tmp_path) == {"run.lock"}
    lock.require_free(tmp_path / "run")
    with lock.held(tmp_path / "run"):
        pass
    assert names(tmp_path) == set()


def test_a_lock_that_cannot_be_made_is_not_said_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: FileLock, timeout: float) -> None:
        raise Timeout(self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(RunFolderError, match=r"run\.lock cannot be made; choose"), lock.held(tmp_path / "run"):
        pass


def test_a_lock_leaves_no_folder_that_was_made_for_it(tmp_path: Path) -> None:
    with lock.held(tmp_path / "a/b/run"):
        assert (tmp_path / "a/b/run.lock").exists()
    assert names(tmp_path) == set()


def test_a_refused_start_discards_only_what_it_made(tmp_path: Path) -> None:
    begin(tmp_path / "run")
    shutil.rmtree(tmp_path / "run.partial/checkpoints")
    second = RunFolder(str(tmp_path / "run"), resume=True)
    second.claim(RECIPE)
    second.create(RECIPE, 0)
    second.discard_if_useless()
    assert (tmp_path / "run.partial/model").exists()
