"""How a command ends: one message and an exit code, whatever happens in it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import DataError, Interrupted, RecipeError

WHERE = "NLP_FT_TRACEBACK=1 in the environment shows where it came from"


class Panic(BaseException):
    """As pyo3 raises it: no Exception."""


def raising(error: BaseException) -> Callable[[object], int]:
    def command(options: object) -> int:
        raise error

    return command


def recursing(options: object) -> int:
    return recursing(options)


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    return exit_info.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("first\nsecond"), f"error: unexpected RuntimeError: first second; {WHERE}"),
        (MemoryError(), f"error: unexpected MemoryError; {WHERE}"),
        (KeyError("x"), f"error: unexpected KeyError: 'x'; {WHERE}"),
        (Panic("of a library"), f"error: unexpected Panic: of a library; {WHERE}"),
        (RuntimeError("a" * 5000), f"error: unexpected RuntimeError: {'a' * 1000}...; {WHERE}"),
        (RecipeError("one\ntwo"), "error: one\nerror: two"),
        (PermissionError(13, "Permission denied", "/x"), "error: /x: Permission denied"),
        (FileNotFoundError(2, "No such file", "a\n\x1b[1A"), "error: a\\n\\x1b[1A: No such file"),
        (ValueError("\x1b[2J\u2028x"), f"error: unexpected ValueError: \\x1b[2J\\u2028x; {WHERE}"),
        (OSError("no such host"), f"error: unexpected OSError: no such host; {WHERE}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_ends_with_2_and_one_message(
    error: BaseException, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.cli.run_schema", raising(error))
    assert ended(capsys, "schema") == (2, f"{line}\n")


def test_a_recursion_without_end_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.cli.run_schema", recursing)
    code, err = ended(capsys, "schema")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: unexpected RecursionError: maximum recursion depth exceeded")


def test_the_traceback_is_shown_when_the_environment_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.cli.run_schema", raising(RuntimeError("boom")))
    monkeypatch.setenv("NLP_FT_TRACEBACK", "1")
    code, err = ended(capsys, "schema")
    assert code == 2
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1] == f"error: unexpected RuntimeError: boom; {WHERE}"


def test_a_signal_ends_with_its_own_code_and_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.cli.run_schema", raising(Interrupted("a checkpoint is at step 3", 143)))
    assert ended(capsys, "schema") == (143, "\na checkpoint is at step 3\n")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_every_process_finds_is_said_once_and_what_one_alone_finds_is_said_too(
    rank: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr("nlp_ft.cli.run_schema", raising(DataError("shared")))
    assert ended(capsys, "schema") == (2, "error: shared\n" if rank == "0" else "")
    monkeypatch.setattr("nlp_ft.cli.run_schema", raising(RuntimeError("alone")))
    assert ended(capsys, "schema") == (2, f"error: unexpected RuntimeError: alone; {WHERE}\n")


def run(script: str, stdout: int | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`bash -c script` where `$PYTHON` is this interpreter."""
    env = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", "-c", script], stderr=subprocess.PIPE, stdout=stdout, env=env)


def test_a_reader_who_goes_away_ends_a_command_quietly_with_141() -> None:
    done = run('set -o pipefail; "$PYTHON" -m nlp_ft schema | true', stdout=subprocess.DEVNULL)
    # `true` may end only after all was written to the pipe; then nothing was cut off.
    assert (done.returncode in (0, 141), done.stderr) == (True, b"")
    done = run('exec 3> >(exec true); wait $!; "$PYTHON" -m nlp_ft schema >&3')
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_without_room_for_the_output_is_an_error() -> None:
    done = run('"$PYTHON" -m nlp_ft schema > /dev/full')
    assert (done.returncode, done.stderr) == (2, b"error: the system: No space left on device\n")


def test_a_command_whose_output_is_closed_still_works() -> None:
    done = run('"$PYTHON" -m nlp_ft schema >&-')
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_ascii_alone_gets_escapes() -> None:
    shown = "print('caf\\u00e9 \\udcff', file=sys.stderr) or print('caf\\u00e9') or 0"
    code = f"import sys; from nlp_ft.exits import exit_with; exit_with(lambda: {shown})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"caf\\xe9\n", b"caf\\xe9 \\udcff\n")


def test_the_launched_script_ends_in_the_same_way(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "train.py"
    code = f"import runpy, psutil; psutil.Process = None; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "none.yaml"], capture_output=True, text=True, cwd=tmp_path)
    expected = f"error: unexpected TypeError: 'NoneType' object is not callable; {WHERE}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
