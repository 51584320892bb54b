"""One trial of the fuzzer: a broken thing, a command on it in a process of its own, and how that ended.

A trial ends well where the command refuses with exit code 2 and one clear message, or gives the right result. The
process is forked, so that a signal or an endless loop ends a trial and not the fuzzer.
"""

import contextlib
import hashlib
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Class = Literal[
    "right",
    "refused",
    "not taken",
    "unclear",
    "wrong",
    "taken",
    "traceback",
    "hang",
    "crash",
    "lost files",
    "left-over files",
]
GOOD: tuple[Class, ...] = ("right", "refused")
SECONDS = 60
BYTES_MORE = 6 * 1024**3
"""Address space that a trial may take beside what it begins with."""
MOST_LINES, LONGEST_LINE = 60, 2500
OWN = ("cache", "going.lock")
"""What belongs to the project in a workplace, and may come and go: features, and the lock of the killed run."""

Check = Callable[[Path, str], str | None]
"""What is wrong with a result, given the workplace and what was printed; None for nothing."""


@dataclass(frozen=True)
class Trial:
    """A broken thing and the command that meets it.

    Args:
        name: kind, a colon, and what is broken.
        prepare: breaks something in the workplace, which is a copy and the current folder.
        arguments: of the command line.
        named: a refusal must name one of these; empty for no such demand.
        check: of the result, where the command ends with 0 (or 1, an audit's).
        must_refuse: there is no right result.
        must_succeed: there is one, so that a refusal is bad.
        writes: names in the workplace that a success may add, change or remove.
        keeps: names that a refusal may add (a run that ended in training keeps its checkpoint).
        environment: of the process.
        most_bytes: to which a file may grow, as on a disk that is nearly full; 0 for no limit.
    """

    name: str
    prepare: Callable[[Path], None]
    arguments: tuple[str, ...]
    named: tuple[str, ...] = ()
    check: Check | None = None
    must_refuse: bool = False
    must_succeed: bool = False
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    most_bytes: int = 0

    @property
    def kind(self) -> str:
        """What is broken: recipe, data, model, ..."""
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Ending:
    """How a trial ended, and where not well, what shows it."""

    trial: Trial
    kind: Class
    detail: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind}: {self.trial.name} [{' '.join(self.trial.arguments)}] {self.detail}"


def run_trial(trial: Trial, base: Path, seconds: float = SECONDS) -> Ending:
    """Run a trial in a copy of the workplace `base`."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work, notes = Path(temporary) / "work", Path(temporary)
        shutil.copytree(base, work, symlinks=True)
        code = in_process(lambda: _run(trial, work, notes), seconds)
        kind, detail = _classify(trial, code, work, notes)
    return Ending(trial, kind, detail, time.monotonic() - start)


def in_process(function: Callable[[], int], seconds: float) -> int | None:
    """The exit code of a forked process that runs the function, negative for a signal; None after so many seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    # On a busy machine the child may not have begun its own process group yet.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def command(arguments: Sequence[str]) -> int:
    """What the command ends with."""
    from nlp_ft.cli import main

    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def at_work(work: Path) -> None:
    """Make the workplace the current folder of this process, with a cache and a home of its own."""
    import datasets

    os.chdir(work)
    home = work.parent / "home"
    home.mkdir(exist_ok=True)
    datasets.config.HF_DATASETS_CACHE = home / "datasets"
    os.environ.update(
        HOME=str(home), NLP_FT_CACHE=str(work / OWN[0]), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"
    )


def _run(trial: Trial, work: Path, notes: Path) -> int:
    at_work(work)
    os.environ.update(trial.environment)
    trial.prepare(work)
    (notes / "before").write_bytes(pickle.dumps(contents(work)))
    # Whoever asks whether to run foreign code, is told yes.
    (notes / "in").write_text("y\n" * 20)
    for number, name in enumerate(("in", "out", "err")):
        handle = os.open(notes / name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(handle, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    _limit_memory()
    if trial.most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trial.most_bytes, resource.RLIM_INFINITY))
    return command(trial.arguments)


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: relative path -> hash of a file, target of a link, or `folder`."""
    found = {}
    for entry in sorted(folder.rglob("*")):
        name = entry.relative_to(folder).as_posix()
        if entry.is_symlink():
            found[name] = f"-> {entry.readlink()}"
        elif entry.is_file():
            found[name] = hashlib.sha256(entry.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if entry.is_dir() else "special"
    return found


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES_MORE, resource.RLIM_INFINITY))


def _classify(trial: Trial, code: int | None, work: Path, notes: Path) -> tuple[Class, str]:
    out, err = (
        (notes / name).read_text("utf-8", "replace") if (notes / name).exists() else "" for name in ("out", "err")
    )
    if not (notes / "before").exists():
        raise AssertionError(f"{trial.name}: could not be prepared")
    changed = _changed(pickle.loads((notes / "before").read_bytes()), contents(work))  # noqa: S301
    allowed = trial.writes if code in (0, 1) else trial.keeps
    lost = [name for name, is_new in changed.items() if not is_new and not _is_below(name, (*allowed, *OWN))]
    left = [name for name, is_new in changed.items() if is_new and not _is_below(name, (*allowed, *OWN))]
    if code is None:
        return "hang", err[-300:]
    if code < 0:
        return "crash", f"signal {-code} {err[-300:]}"
    if "Traceback (most recent call last)" in err or code not in (0, 1, 2):
        return "traceback", f"exit code {code}: {err[-600:]}"
    if lost:
        return "lost files", ", ".join(lost)
    if left:
        return "left-over files", ", ".join(left)
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u202e]", out + err):
        return "unclear", f"control characters: {out + err!r}"
    if code == 2 and trial.must_succeed:
        return "not taken", err[-500:]
    if code == 2:
        fault = fault_of_message(err, trial.named)
        return ("unclear", fault) if fault else ("refused", "")
    if trial.must_refuse:
        return "taken", f"{out[-300:]}"
    fault = trial.check(work, out) if trial.check else None
    return ("wrong", fault) if fault else ("right", "")


def fault_of_message(err: str, named: Sequence[str] = ()) -> str | None:
    """What is wrong with how a refusal is told; None for nothing."""
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    if not 1 <= len(told) <= MOST_LINES or max(map(len, told)) > LONGEST_LINE:
        return f"{len(told)} lines of an error: {err[-500:]}"
    if any(line.startswith("error: unexpected ") for line in told):
        return f"no cause is told: {told}"
    text = "\n".join(told)
    return None if not named or any(name in text for name in named) else f"none of {named} is named: {told}"


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, bool]:
    """Path -> whether it is new; what is as it was stays out."""
    return {
        name: name not in before for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
    }


def _is_below(name: str, allowed: Sequence[str]) -> bool:
    return any(name == top or name.startswith(f"{top}/") for top in allowed)
