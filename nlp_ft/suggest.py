"""Suggestions in error messages: the nearest of the names that are known."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean X?` with the nearest of the names, or an empty string if none is near."""
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
