"""Paths as recipes write them: plain ones, and `package:NAME/PATH` for a file inside an installed package."""

from importlib.util import find_spec
from pathlib import Path

from nlp_ft.errors import NlpFtError

PREFIX = "package:"


def resolve_location(text: str, error: type[NlpFtError]) -> str:
    """The path of `package:NAME/PATH`; any other text is given back as it is.

    Raises:
        error: the package is not installed, or holds no such file.
    """
    if not text.startswith(PREFIX):
        return text
    name, _, inner = text.removeprefix(PREFIX).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        distribution = name.replace("_", "-")
        raise error(f"{text}: the package {name} is not installed; try: pip install {distribution}")
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        raise error(f"{text}: the package {name} holds no {inner}")
    return str(path)
