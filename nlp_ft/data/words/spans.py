"""Tags and the spans that they mark: the schemes IOB2 and IOBES, and plain tags, where each tagged word is a span.

A span counts as in the strict mode of seqeval: it begins with B- (or is S-), and under IOBES it ends with E-.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_ft.errors import DataError, listed
from nlp_ft.recipe.words import Scheme, TagScheme

OUTSIDE = "O"
"""The tag of a word that belongs to no span."""
PREFIXES: dict[TagScheme, str] = {"iob2": "BI", "iobes": "BIES", "none": ""}
"""Scheme -> the first letters of its tags, in the order in which a span has them."""


@dataclass(frozen=True, order=True)
class Span:
    """The words `start` to `end`, without `end`, counted from 0, and what they are."""

    start: int
    end: int
    label: str


def find_scheme(setting: Scheme, tags: Collection[str], where: str) -> TagScheme:
    """Find the scheme of all different tags of a data set.

    Args:
        setting: `data.scheme` of the recipe.
        tags: the different tags.
        where: name of the tags in error messages.

    Raises:
        DataError: some tags have a form that the scheme does not have.
    """
    inside = sorted(tag for tag in tags if tag != OUTSIDE)
    has_prefix = any(_prefix(tag) in "BIES" for tag in inside)
    if setting == "none" or (setting == "auto" and not has_prefix):
        return "none"
    scheme: TagScheme = setting if setting != "auto" else "iob2"
    if setting == "auto" and any(_prefix(tag) in "ES" for tag in inside):
        scheme = "iobes"
    wrong = [tag for tag in inside if _prefix(tag) not in PREFIXES[scheme]]
    if wrong:
        forms = ", ".join(f"{prefix}-TYPE" for prefix in PREFIXES[scheme])
        raise DataError(
            f"{where}: the tags must be {OUTSIDE}, {forms} (scheme {scheme}), but there are: {listed(wrong, 5)}; "
            "correct them, or set data.scheme to none, which takes tags as they are"
        )
    return scheme


def type_of(tag: str, scheme: TagScheme) -> str:
    """The type that a tag other than `O` names: `location` of `B-location`; of plain tags the tag itself."""
    return tag if scheme == "none" else tag[2:]


def types_of(tags: Collection[str], scheme: TagScheme) -> list[str]:
    """List the different types of tags, in the order of the tags."""
    return list(dict.fromkeys(type_of(tag, scheme) for tag in tags if tag != OUTSIDE))


def tag_order(tag: str) -> tuple[bool, str, int]:
    """Sort key of tags: `O` first, then by type, and within a type as a span has them."""
    prefix = _prefix(tag)
    return (tag != OUTSIDE, tag[2:] if prefix in "BIES" else tag, "BIES".find(prefix))


def spans_of(tags: Sequence[str], scheme: TagScheme) -> list[Span]:
    """Read the spans of one row's tags, in order; tags that break the scheme mark none."""
    if scheme == "none":
        return [Span(i, i + 1, tag) for i, tag in enumerate(tags) if tag != OUTSIDE]
    found: list[Span] = []
    start, label = -1, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, of_tag = tag[:1], tag[2:]
        if not (start >= 0 and prefix in "IE" and of_tag == label):
            if start >= 0 and scheme == "iob2":
                found.append(Span(start, i, label))
            start, label = (i, of_tag) if prefix in "BS" else (-1, "")
        if start >= 0 and prefix in "ES":
            found.append(Span(start, i + 1, label))
            start = -1
    return found


def with_names(value: Any) -> Any:
    """Name the parts of spans that are written as (start, end, label), as doccano and spaCy do; all else stays."""
    is_spans = isinstance(value, list | tuple) and value and all(map(_is_span, value))
    return [dict(zip(("start", "end", "label"), span, strict=True)) for span in value] if is_spans else value


def _is_span(value: Any) -> bool:
    return isinstance(value, list | tuple) and list(map(type, value)) == [int, int, str]


def tags_of(spans: Sequence[Span], num_words: int, scheme: TagScheme) -> list[str]:
    """Write spans as the tags of a row; the reverse of `spans_of`."""
    tags = [OUTSIDE] * num_words
    for span in spans:
        for i in range(span.start, span.end):
            is_first, is_last = i == span.start, i == span.end - 1
            prefix = "B" if is_first else "I"
            if scheme == "iobes" and is_last:
                prefix = "S" if is_first else "E"
            tags[i] = span.label if scheme == "none" else f"{prefix}-{span.label}"
    return tags


def first_break(codes: np.ndarray, lengths: np.ndarray, names: Sequence[str], scheme: TagScheme) -> int | None:
    """Find the first tag that may not follow the one before it.

    Args:
        codes: the tags of all rows, one row after the other, as positions in `names`, (words,).
        lengths: number of words of each row, (rows,), each above 0.
        names: the different tags.
        scheme: the scheme.

    Returns:
        The position in `codes`, or that of the last tag of a row that breaks off; None if there is none.
    """
    if scheme == "none":
        return None
    follows = np.array(
        [[_may_follow(tag, before, scheme) for tag in (*names, OUTSIDE)] for before in (*names, OUTSIDE)]
    )
    ends = np.cumsum(lengths)
    border = len(names)
    before, after = np.roll(codes, 1), np.roll(codes, -1)
    before[ends - lengths], after[ends - 1] = border, border
    is_wrong = ~follows[before, codes]
    is_wrong[ends - 1] |= ~follows[codes[ends - 1], border]
    wrong = np.flatnonzero(is_wrong)
    return int(wrong[0]) if len(wrong) else None


def _may_follow(tag: str, before: str, scheme: TagScheme) -> bool:
    """Whether a tag may stand behind another one; `O` stands for both ends of a row."""
    goes_on = before != OUTSIDE and tag != OUTSIDE and before[2:] == tag[2:] and before[:1] in "BI" and tag[:1] in "IE"
    if scheme == "iobes" and before[:1] in ("B", "I"):
        return goes_on
    return goes_on or tag[:1] not in ("I", "E")


def _prefix(tag: str) -> str:
    """The letter before the hyphen of `B-location`; `-` for a tag of another form, which is in no scheme."""
    return tag[0] if len(tag) > 2 and tag[1] == "-" else "-"
