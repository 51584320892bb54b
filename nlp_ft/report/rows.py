"""The rows of `<split>_predictions.csv`: what was right, how sure the model was, and the texts with their spans."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlp_ft.errors import printable
from nlp_ft.report.run_files import read_table

SHOWN_CHARACTERS = 400
"""Most characters of a text in a report."""
AROUND_ANSWER = 150
"""Characters of a passage that stand before and after an answer."""
CONFIDENT = 0.9
"""Probability from which a wrong prediction raises the question whether the label is right."""

SHOWN = ("inputs", "reference", "predicted", "passage", "true_spans", "predicted_spans", "perhaps_mislabelled")
"""What a report may say of a row beside numbers; None where it does not."""

PREDICTED = ("predicted", "predicted_answer", "predicted_candidate")
"""Columns with a prediction: a label, an answer, a chosen candidate."""

Segment = dict[str, str | None]
"""A piece of a text, `text`, and the name of the span that it is, `span`; None outside all spans."""


@dataclass(frozen=True)
class Row:
    """A row of held-out data with its prediction; `columns` are its inputs, by name."""

    number: str
    columns: Mapping[str, str]
    reference: str
    predicted: str
    score: float | None
    loss: float | None
    place: tuple[int, int] | None = None
    """First character of a predicted answer in its passage, and the one after the last."""
    accepted: tuple[str, ...] = field(default=())
    """What counts as right; (reference,) but for answers."""

    @property
    def is_right(self) -> bool:
        """Whether the prediction is exactly what the data say."""
        return self.predicted in (self.accepted or (self.reference,))

    @property
    def num_characters(self) -> int:
        """Characters of all inputs together."""
        return sum(map(len, self.columns.values()))


def read_rows(file: Path) -> list[Row]:
    """Read the predictions of a split in the order of the file, the highest loss first; none without a file."""
    header, lines = read_table(file)
    # The first column is the number of the row: `row`, or `row_2` beside an input that is called so.
    if not header or not header[0].startswith("row"):
        return []
    # If an input is called `reference`, say, the columns behind the inputs end in _2.
    ending = header[-1].removeprefix("loss") if header[-1].startswith("loss") else ""
    if f"reference{ending}" not in header:
        return []
    first = header.index(f"reference{ending}")
    return [_row(header[:first], line[:first], _named(header[first:], line[first:], ending)) for line in lines]


def _named(header: Sequence[str], line: Sequence[str], ending: str) -> dict[str, str]:
    return {name.removesuffix(ending) if ending else name: value for name, value in zip(header, line, strict=True)}


def _row(names: Sequence[str], inputs: Sequence[str], found: Mapping[str, str]) -> Row:
    is_answer = "predicted_answer" in found
    predicted = next((found[name] for name in PREDICTED if name in found), "")
    start, end = found.get("predicted_start", ""), found.get("predicted_end", "")
    return Row(
        inputs[0],
        dict(zip(names[1:], inputs[1:], strict=True)),
        found["reference"],
        predicted,
        _number(found.get("predicted_score", found.get("score", ""))),
        _number(found.get("loss", "")),
        (int(start), int(end)) if start.isdigit() and end.isdigit() else None,
        tuple(found["reference"].split(" | ")) if is_answer else (),
    )


def shown_row(row: Row, show: Callable[[Row], dict[str, Any]], texts: bool) -> dict[str, Any]:
    """Make what a report says of a row; without texts, only its number, probability and loss."""
    shown: dict[str, Any] = {"row": row.number, "score": row.score, "loss": row.loss, "is_right": row.is_right}
    return {**shown, **dict.fromkeys(SHOWN), **(show(row) if texts else {})}


def show_label(row: Row) -> dict[str, Any]:
    """Show a text with one label or more, or with numbers."""
    return {"inputs": _inputs(row.columns), "reference": _shown(row.reference), "predicted": _shown(row.predicted)}


def show_number(row: Row) -> dict[str, Any]:
    """Show a text with a number, or with a list of numbers, to four digits."""
    return {**show_label(row), "reference": _rounded(row.reference), "predicted": _rounded(row.predicted)}


def show_tags(row: Row) -> dict[str, Any]:
    """Show the words of a text twice: with the true spans marked, and with the predicted ones."""
    words = next((value for value in map(_list, row.columns.values()) if value is not None), None)
    true, predicted = _list(row.reference), _list(row.predicted)
    if words is None or true is None or predicted is None:
        return show_label(row)
    return {"true_spans": marked_words(words, true), "predicted_spans": marked_words(words, predicted)}


def show_answer(row: Row) -> dict[str, Any]:
    """Show a question with the passage around the predicted answer, or the right one, which is marked."""
    columns = dict(row.columns)
    passage = max(columns, key=lambda name: len(columns[name]), default=None)
    shown = {"reference": _shown(row.reference or "(no answer)"), "predicted": _shown(row.predicted or "(no answer)")}
    if passage is None:
        return shown
    text = columns.pop(passage)
    place, name = row.place, "predicted"
    if place is None and (right := next((text.find(one) for one in row.accepted if one and one in text), -1)) >= 0:
        length = next(len(one) for one in row.accepted if one and one in text)
        place, name = (right, right + length), "right"
    return {"inputs": _inputs(columns), **shown, "passage": _passage(text, place, name)}


def marked_words(words: Sequence[str], tags: Sequence[str]) -> list[Segment]:
    """Join words to segments, one for each span and one for the words between two spans.

    A tag is `O` or a letter, a hyphen and a type, as in `B-person`; without a letter the whole tag is the type.
    """
    segments: list[Segment] = []
    for word, (span, is_new) in zip(words, _spans(tags)):
        if segments and not is_new and segments[-1]["span"] == span:
            segments[-1]["text"] = f"{segments[-1]['text']} {_shown(word)}"
        else:
            segments.append({"text": _shown(word), "span": span})
    return segments


def _spans(tags: Sequence[str]) -> Iterator[tuple[str | None, bool]]:
    """Yield for each tag the type of its span, and whether another span begins there."""
    for tag in tags:
        letter, hyphen, kind = tag.partition("-")
        if not hyphen or len(letter) != 1:
            letter, kind = "", tag
        yield (None, False) if tag in ("O", "") else (printable(kind), letter in ("B", "S", "U"))


def _passage(text: str, place: tuple[int, int] | None, name: str) -> list[Segment]:
    if place is None:
        return [{"text": _shown(text), "span": None}]
    start, end = place
    before = text[max(0, start - AROUND_ANSWER) : start]
    after = text[end : end + AROUND_ANSWER]
    return [
        {"text": ("... " if start > AROUND_ANSWER else "") + printable(before), "span": None},
        {"text": _shown(text[start:end]), "span": name},
        {"text": printable(after) + (" ..." if len(text) > end + AROUND_ANSWER else ""), "span": None},
    ]


def _inputs(columns: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": _shown(name), "text": _shown(text)} for name, text in columns.items()]


def _shown(text: str) -> str:
    return printable(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _rounded(text: str) -> str:
    numbers = _list(text) or [text]
    found = [_number(one) for one in numbers]
    return ", ".join(one if number is None else f"{number:.4g}" for one, number in zip(numbers, found))


def _list(text: str) -> list[str] | None:
    """Read a JSON list of texts; None if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return [str(one) for one in value] if isinstance(value, list) else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
