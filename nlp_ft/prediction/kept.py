"""Lets a prediction go on where it was stopped: it compares itself with what was begun, and decides what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlp_ft.data import streaming
from nlp_ft.data.columns import content_of
from nlp_ft.errors import DataError, Interrupted, NlpFtError, RunFolderError
from nlp_ft.exits import INTERRUPTED
from nlp_ft.prediction.disk import DiskError, disk_named
from nlp_ft.prediction.exports import engine_of
from nlp_ft.prediction.parts import Parts, check_partial, partial_folder
from nlp_ft.prediction.trained_run import Source, TrainedRun
from nlp_ft.screen import note, show
from nlp_ft.tasks.registry import task_class
from nlp_ft.training import durable, lock
from nlp_ft.training.identity import changes, environment_of, refuse_other_identity
from nlp_ft.training.precision import precision_of_use

OPTION = "--output"
"""What names the file of predictions, for error messages."""
NOT_COMPUTED_WITH = (".csv", ".html", ".jsonl", ".md")
"""Endings of the files of a run that are for people to read."""


@contextmanager
def kept_parts(run: TrainedRun, source: Source, output: str, *, probabilities: bool, resume: bool) -> Iterator[Parts]:
    """Yield the finished chunks of an output, and keep other processes from writing it inside the block.

    They are removed at the end, and after an error that the same inputs would raise again. After Ctrl-C, a full disk or
    a failure of the machine they are kept.

    Raises:
        RunFolderError: another process writes the output, or a folder that is no prediction is in the way; or, on a
            resume, the input, the run or a setting is not the one that it was begun with.
        DataError: the input cannot be read twice.
    """
    parts = Parts(output, identity := identity_of(run, source, probabilities))
    with lock.held(Path(output), OPTION):
        if resume:
            check_partial(output, resume=True, overwrite=False)
            _require_no_shard(parts.folder)
        else:
            discard(output)
        _begin(parts, run, output, identity)
        try:
            yield parts
        except BaseException as error:
            if not parts.count() or (isinstance(error, NlpFtError) and not isinstance(error, DiskError)):
                parts.remove()
                raise
            raise _with_advice(error, parts, "pass --resume to go on from there") from None
        parts.remove()


@contextmanager
def shared_parts(
    run: TrainedRun, source: Source, output: str, shard: tuple[int, int], *, probabilities: bool
) -> Iterator[Parts]:
    """Yield the finished chunks of an output, which several processes make, each another shard; none is removed.

    Raises:
        RunFolderError: see `kept_parts`; or another process has this shard.
        DataError: the input cannot be read twice.
    """
    parts = Parts(output, identity := identity_of(run, source, probabilities))
    lock.require_free(Path(output), OPTION)
    check_partial(output, resume=True, overwrite=False)
    with lock.held(parts.folder / "shard-{}-of-{}".format(*shard), OPTION):
        try:
            _begin(parts, run, output, identity)
        except RunFolderError as error:
            # `--overwrite` of one shard would remove what the others have made.
            said = str(error).removeprefix("--resume: ").replace("pass --overwrite", f"remove {parts.folder}")
            raise RunFolderError(f"--output: {said}") from None
        try:
            yield parts
        except BaseException as error:
            raise _with_advice(error, parts, "the same command goes on from there") from None


def discard(output: str) -> None:
    """Remove the finished chunks of an output. Raises: RunFolderError: they are not ours, or a shard is written."""
    folder = partial_folder(output)
    check_partial(output, resume=False, overwrite=True)
    _require_no_shard(folder)
    if folder.exists():
        with disk_named(output):
            Parts(output, {}).remove()


def identity_of(run: TrainedRun, source: Source, probabilities: bool) -> dict[str, Any]:
    """Collect what must be equal on a resume; the keys are words for an error message. Raises: DataError."""
    files = sorted(file for file in run.folder.iterdir() if file.is_file() and file.suffix not in NOT_COMPUTED_WITH)
    return {
        "input": run.content_of(source),
        "run": content_of([(file.name, durable.content_hash(file)) for file in files]),
        "engine": engine_of(run.folder),
        "--probabilities": probabilities,
        "rows of a chunk": streaming.CHUNK_ROWS,
    }


def _begin(parts: Parts, run: TrainedRun, output: str, identity: dict[str, Any]) -> None:
    """Make the folder, or compare this prediction with the one that made it. Raises: RunFolderError."""
    precision = precision_of_use(run.recipe.training.precision, run.device)
    environment = environment_of(run.device, precision, task_class(run.recipe.task).libraries)
    with disk_named(output):
        before = parts.begin({"identity": identity, "environment": environment})
    refuse_other_identity(parts.folder, before["identity"], identity)
    if different := changes(before["environment"], environment):
        show(
            f"warning: {parts.folder} was begun in another environment ({'; '.join(different)}); its predictions will "
            "equal those of an unbroken run to rounding"
        )
    if kept := parts.count():
        note(f"going on with the finished chunks in {parts.folder}: {kept} of {streaming.CHUNK_ROWS:,} rows each")


def _with_advice(error: BaseException, parts: Parts, advice: str) -> BaseException:
    """Say in the message of a full disk or of Ctrl-C that finished chunks are kept."""
    kept = f"finished chunks are kept in {parts.folder}; {advice}"
    if isinstance(error, DiskError):
        return DataError(f"{error}; {kept}")
    return Interrupted(f"interrupted; {kept}", INTERRUPTED) if isinstance(error, KeyboardInterrupt) else error


def _require_no_shard(folder: Path) -> None:
    for file in folder.glob("*.lock"):
        lock.require_free(file.with_suffix(""), OPTION)
