"""What a command says on the screen: how much of it, by one process alone, and no line wider than the terminal."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from shutil import which
from typing import Literal

from nlp_ft.environment import is_main_process
from nlp_ft.tables import wrapped

Level = Literal["quiet", "bar", "normal", "verbose"]
_level: ContextVar[Level] = ContextVar("level", default="normal")


@contextmanager
def at_level(level: Level) -> Iterator[None]:
    """Say as much as the level allows inside the block.

    `quiet` shows results, warnings and errors alone; `bar` shows the live bar, too, as a notebook does.
    """
    token = _level.set(level)
    try:
        yield
    finally:
        _level.reset(token)


def is_quiet() -> bool:
    """Whether results, warnings and errors are shown, and no remarks."""
    return _level.get() in ("quiet", "bar")


def shows_bar() -> bool:
    """Whether a live bar is shown, where there is a place for it."""
    return _level.get() != "quiet"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows bars and tables as HTML."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def is_verbose() -> bool:
    """Whether settings, versions and the messages of the libraries are shown, too."""
    return _level.get() == "verbose"


def program() -> str:
    """Return the command as it was typed, such as `.venv/bin/nlp-ft` where `nlp-ft` is not on the path."""
    typed = sys.argv[0]
    return typed if Path(typed).name == "nlp-ft" and which("nlp-ft") is None else "nlp-ft"


def typed_command() -> str | None:
    """Return the command line of `nlp-ft` as a shell reads it; None in any other program, such as a notebook."""
    typed = Path(sys.argv[0])
    is_ours = typed.name == "nlp-ft" or typed.parts[-2:] == ("nlp_ft", "__main__.py")
    return shlex.join([program(), *sys.argv[1:]]) if is_ours else None


def say(text: str) -> None:
    """Print what happens, unless the screen is quiet; one process prints."""
    if not is_quiet():
        show(text)


def note(text: str) -> None:
    """Print on stderr what happens, unless the screen is quiet, where stdout is for the result; one process prints."""
    if is_main_process() and not is_quiet():
        print(wrapped(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result or a warning, at every level; one process prints. A command to type next stays on one line."""
    if is_main_process():
        lines = (line if line.startswith("next: ") else wrapped(line) for line in text.split("\n"))
        print("\n".join(lines), flush=True)
