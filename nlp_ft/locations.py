"""Paths as recipes write them: plain ones, and `package:NAME/PATH` for a file inside an installed package."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from nlp_ft.errors import NlpFtError

PREFIX = "package:"


def resolve_location(text: str, error: type[NlpFtError], field: str = "") -> str:
    """The path that a text stands for: `package:NAME/PATH` and `~/x` are resolved, any other text is returned as it is.

    Args:
        text: a path as it is written in a recipe, on the command line or in a call.
        error: the class of the error to raise.
        field: the key that has the path; the message begins with it.

    Raises:
        error: the package is not installed or holds no such file, or no path can be written like this.
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
    """The path with a leading `~` replaced by the home folder.

    A shell expands `~` only at the beginning of a word, so not in `output_dir=~/x`; without this, a folder named `~`
    would be made.

    Raises:
        ValueError: there is no such home folder, or the path has a variable such as `$HOME`; the message continues the
            words "must be".
    """
    if re.search(r"(?:^|/)\$(?:[A-Za-z_{(])", text):
        raise ValueError(
            "a path in which no variable stands, such as $HOME: write out what it stands for, or ~ for home"
        )
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    # With an empty HOME, `~/x` would become `/x`.
    if path.startswith("~") or not os.environ.get("HOME", "unset"):
        raise ValueError("a path whose ~ is a home folder here; a file of that name is written ./~NAME")
    return path
