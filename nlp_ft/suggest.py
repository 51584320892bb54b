"""Did you mean: the known name that is nearest to one that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 100
"""Characters of a name that are compared."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean X?` with the nearest known name, to end an error message; empty if none is near."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like the given one; None if none is at least `cutoff` like it, from 0 to 1."""
    near = get_close_matches(str(name)[:LONGEST_NAME], list(known), n=1, cutoff=cutoff)
    return near[0] if near else None
