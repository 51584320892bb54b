"""Paths as recipes write them: plain ones, and `package:NAME/PATH` for a file inside an installed package."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from nlp_ft.errors import NlpFtError

PREFIX = "package:"


def resolve_location(text: str, error: type[NlpFtError], field: str = "") -> str:
    """The path of `package:NAME/PATH`, or of `~/x`; any other text is given back as it is.

    Args:
        text: as a recipe, a command line or a call has it.
        error: what is raised.
        field: begins the message.

    Raises:
        error: the package is not installed, or holds no such file; or the text can be no path.
    """
    start = f"{field}: " if field else ""
    if not text.strip():
        raise error(f"{start}a path must not be blank, got {text!r}")
    try:
        is_possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise error(f"{start}{text!r} can be no path: it holds a NUL, or half of a surrogate pair")
    if not text.startswith(PREFIX):
        try:
            return text if os.path.exists(text) else expand_home(text)
        except ValueError as reason:
            raise error(f"{start}{text} must be {reason}") from None
    name, _, inner = text.removeprefix(PREFIX).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        distribution = name.replace("_", "-")
        raise error(f"{text}: the package {name} is not installed; try: pip install {distribution}")
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        raise error(f"{text}: the package {name} holds no {inner}")
    return str(path)


def expand_home(text: str) -> str:
    """The path with `~` at its beginning as the home folder.

    A shell expands `~` and `$HOME` only where they begin a word, so not in `output_dir=~/x`; taken as they are, they
    would make a folder of that name.

    Raises:
        ValueError: there is no such home, or a part of the path is a variable; the text follows on "must be".
    """
    if re.search(r"(?:^|/)\$(?:[A-Za-z_{(])", text):
        raise ValueError(
            "a path in which no variable stands, such as $HOME: write out what it stands for, or ~ for home"
        )
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    # An empty HOME would make `/x` of `~/x`.
    if path.startswith("~") or not os.environ.get("HOME", "unset"):
        raise ValueError("a path whose ~ is a home folder here; a file of that name is written ./~NAME")
    return path
