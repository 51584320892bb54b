"""Checks a question with its context and answers: every answer must be a part of the context, at the given place."""

import re
from collections.abc import Mapping
from typing import Any

import pyarrow

from nlp_ft.errors import DataError, listed

PLACES_NAMED = 5
NEAR = 5
"""An answer is taken from this many characters beside `answer_start` at most, if its context holds it once."""
NUMBER = re.compile(r"\s*-?[0-9]{1,12}\s*")
SCHEMA = pyarrow.schema(
    {
        "article": pyarrow.string(),
        "question": pyarrow.string(),
        "context": pyarrow.string(),
        "answers": pyarrow.list_(pyarrow.string()),
        "starts": pyarrow.list_(pyarrow.int64()),
        "is_respaced": pyarrow.bool_(),
        "is_moved": pyarrow.bool_(),
    }
)
"""The columns of questions that were read. `answers` are parts of the context, `starts` the positions of their first
characters; both are empty where the context has no answer. `is_respaced`: an answer was written with other white space.
`is_moved`: one stands beside the place that was given.
"""


def checked_question(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check one row, and give it the columns of `SCHEMA`.

    Args:
        row: `article`, `question`, `context`, and `answers`, a list of `{text, answer_start}`.
        where: the name of the row in error messages.

    Raises:
        DataError: question or context is empty, or an answer is not in the context at its place.
    """
    question, context = row["question"], row["context"]
    for name, text in (("question", question), ("context", context)):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where} has no {name}, got {text!r}; write it, or remove the row")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise DataError(f"{where}: its {name} holds half of a surrogate pair; write it in valid Unicode")
    if not isinstance(row["answers"], list):
        raise DataError(f"{where}: its answers must be a list of {{text, answer_start}}, got {row['answers']!r:.60}")
    found = [_placed(answer, context, where) for answer in row["answers"]]
    # The same answer at the same place may be given by several people.
    places = list(dict.fromkeys((text, start) for text, start, _, _ in found))
    return {
        "article": row["article"],
        "question": question.strip(),
        "context": context,
        "answers": [text for text, _ in places],
        "starts": [start for _, start in places],
        "is_respaced": any(is_respaced for _, _, is_respaced, _ in found),
        "is_moved": any(is_moved for *_, is_moved in found),
    }


def _placed(answer: Any, context: str, where: str) -> tuple[str, int, bool, bool]:
    """Find an answer in its context, with the white space that it has there.

    Returns:
        The part of the context, the position of its first character, whether its white space differs from that of the
        given answer, and whether it stands elsewhere.

    Raises:
        DataError: the context does not hold the answer at that place.
    """
    text, start = (answer.get("text"), answer.get("answer_start")) if isinstance(answer, dict) else (answer, None)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: an answer must have a text, got {answer!r:.60}; a question without answer has none")
    if (isinstance(start, float) and start.is_integer()) or (isinstance(start, str) and NUMBER.fullmatch(start)):
        start = int(start)
    if type(start) is not int:
        raise DataError(
            f"{where}: answer {text!r:.60} must have answer_start, the position of its first character in the context, "
            f"got {start!r}"
        )
    if start >= 0 and context[start : start + len(text)] == text == text.strip():
        return text, start, False, False
    words = r"\s+".join(map(re.escape, text.split()))
    match = re.compile(rf"\s*({words})").match(context, start) if 0 <= start <= len(context) else None
    if match:
        return match[1], match.start(1), True, False
    places = list(re.finditer(words, context))
    if len(places) == 1 and abs(places[0].start() - start) <= NEAR:
        return places[0][0], places[0].start(), places[0][0] != text, True
    raise DataError(f"{where}: {_misplaced(text, start, context, words)}")


def _misplaced(text: str, start: int, context: str, words: str) -> str:
    """Say where an answer is instead of at `answer_start`."""
    held = repr(context[start : start + len(text)]) if 0 <= start < len(context) else "nothing"
    says = f"answer_start {start} is wrong: the context has {held:.60} there, and the answer is {text!r:.60}"
    places = [str(match.start()) for match in re.finditer(words, context)]
    if places:
        return f"{says}, which begins at {listed(places, PLACES_NAMED)}"
    anycase = [str(match.start()) for match in re.finditer(words, context, re.IGNORECASE)]
    if anycase:
        return f"{says}, which begins at {listed(anycase, PLACES_NAMED)} in other case; write it as the context does"
    return f"{says}, which the context does not hold; an answer must be a part of its context"
