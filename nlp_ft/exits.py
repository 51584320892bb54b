"""Turns the end of a command into an exit code, and an error into one clear message. Imports no torch."""

import os
import select
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from nlp_ft.environment import ignore_unusable_folders, is_main_process, show_what_cannot_be_shown
from nlp_ft.errors import Interrupted, MachineError, NlpFtError, printable

TRACEBACK = "NLP_FT_TRACEBACK"
"""Environment variable; if it is set, an error is printed with its traceback."""
FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
LONGEST = 1000


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Run a command and exit with what it returns.

    Any error, a lack of memory included, prints one message on stderr and exits with 2. A signal exits with 128 and its
    number. A closed pipe, such as after `| head`, exits with 141.
    """
    show_what_cannot_be_shown()
    ignore_unusable_folders()
    try:
        status = command()
        _flush()
    except SystemExit:
        _close_stdout_if_broken()
        raise
    except Interrupted as stop:
        if is_main_process():
            print(f"\n{stop}", file=sys.stderr)
        status = stop.exit_code
    except KeyboardInterrupt:
        print(
            "\ninterrupted; where a checkpoint was written, the same command goes on, nlp-ft train with --resume",
            file=sys.stderr,
        )
        status = INTERRUPTED
    # Not `Exception`: a panic in a library written in Rust (tokenizers, safetensors) is not one.
    except BaseException as error:
        status = _failed(error)
    _close_stdout_if_broken()
    sys.exit(status)


def fail(message: str) -> int:
    """Print what is wrong, one line for each problem, once for all processes; return the exit code."""
    if is_main_process():
        _say(printable(message, keep="\n"))
    return FAILED


def _failed(error: BaseException) -> int:
    # The broken pipe may also be one to a worker process; that is an error to report.
    if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
        return PIPE_CLOSED
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if isinstance(error, NlpFtError) and not isinstance(error, MachineError):
        return fail(str(error))
    # Other than an error in the recipe, this one may occur in one process alone, so every process prints it.
    if isinstance(error, MachineError):
        _say(str(error))
        return FAILED
    text = printable(" ".join(line.strip() for line in str(error).split("\n")))
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    if isinstance(error, OSError) and (error.filename or error.strerror):
        _say(f"{printable(str(error.filename or 'the system'))}: {error.strerror or text}")
    else:
        said = f"unexpected {type(error).__name__}{': ' if text else ''}{text}"
        _say(f"{said}; {TRACEBACK}=1 in the environment shows where it came from")
    return FAILED


def _say(message: str) -> None:
    for line in message.split("\n"):
        print(f"error: {line}", file=sys.stderr)


def _flush() -> None:
    # stdout is None if it was closed before the start (`>&-`).
    if sys.stdout is not None:
        sys.stdout.flush()


def _nobody_reads_stdout() -> bool:
    watch = select.poll()
    watch.register(sys.stdout.fileno(), select.POLLERR)
    return bool(watch.poll(0))


def _close_stdout_if_broken() -> None:
    """Replace a broken stdout, so that Python's own flush at the end prints no error."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
