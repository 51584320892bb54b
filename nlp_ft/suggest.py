"""Suggests the known name that is nearest to an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 100
"""Number of characters of a name that are compared."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean X?` with the nearest known name, to end an error message; empty if none is near."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most similar to the given one; None if no similarity reaches `cutoff` (0 to 1)."""
    near = get_close_matches(str(name)[:LONGEST_NAME], list(known), n=1, cutoff=cutoff)
    return near[0] if near else None
