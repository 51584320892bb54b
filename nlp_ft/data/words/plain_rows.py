"""Turns rows of any form into words and tags: lists as they are, texts with character spans divided into words."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from nlp_ft.data.stored import stored_map
from nlp_ft.data.words.spans import Span, tags_of
from nlp_ft.errors import DataError
from nlp_ft.recipe.words import TagScheme, WordsDataSection

WORDS, TAGS, TEXT, STARTS = "words", "tags", "text", "starts"
"""Columns of plain rows: the words, their tags; and where the words come from a text, the text, and the position of the
first character of each word in it."""
KEYS_OF_A_SPAN = (("start", "start_offset"), ("end", "end_offset"), ("label", "labels"))
"""The keys of start, end and label; the second of each are those of doccano and of Label Studio (JSON-MIN)."""
Names = Sequence[str]
_LISTS = (List, LargeList)


def plain_rows(rows: Dataset, where: str, data: WordsDataSection) -> Dataset:
    """Turn rows into words and tags, cached on the disk.

    Args:
        rows: rows with the columns that the recipe names.
        where: name of the rows in error messages.
        data: the data section of the recipe.

    Raises:
        DataError: a column holds something else, or a row has no words, another number of tags than of words, a blank
            word or tag, or a span that does not fit its text.
    """
    strings = List(Value("string"))
    function: Callable[..., dict[str, list[Any]]] = _of_lists
    kept: dict[str, Any]
    if data.text is None:
        names = _tag_names(rows, where, data)
        _check_type(rows, data.words, where, "data.words", "strings")
        kept = {"words": data.words, "label": data.label, "names": names}
        features = Features({WORDS: strings, TAGS: strings})
    else:
        scheme = "iob2" if data.scheme == "auto" else data.scheme
        function, kept = _of_spans, {"text": data.text, "spans": data.spans, "scheme": scheme}
        features = Features({WORDS: strings, TAGS: strings, TEXT: Value("string"), STARTS: List(Value("int32"))})
    return stored_map(
        rows,
        function,
        {**kept, "where": where},
        with_indices=True,
        remove_columns=rows.column_names,
        features=features,
        desc="Reading words",
    )


def check_words(words: Any, where: str) -> list[str]:
    """Check the words of a row. Raises: DataError: it is no list of words, is empty, or has a blank word."""
    if not isinstance(words, list | tuple):
        raise DataError(f"{where} has no list of words, but {words!r:.60}")
    if not words:
        raise DataError(f"{where} has no words; remove the row")
    for position, word in enumerate(words):
        if not isinstance(word, str):
            raise DataError(f"{where}: word {position} (from 0) must be a text, got {word!r:.60}")
        if not word.strip():
            raise DataError(f"{where}: word {position} (from 0) is {word!r}, which is blank; remove it and its tag")
    return list(words)


def divided(text: str) -> tuple[list[str], list[int]]:
    """Divide a text into words: runs of letters, marks, digits and underscores; else single characters that are seen.

    Ideographs stand alone, as each can be a word.

    Returns:
        The words, and the position of the first character of each.
    """
    words: list[str] = []
    starts: list[int] = []
    end, in_run = -1, False
    for position, char in enumerate(text):
        category = unicodedata.category(char)
        goes_on = (char.isalnum() or char == "_") and not _is_ideograph(char)
        if end == position and (category[0] == "M" or category == "Cf" or (goes_on and in_run)):
            words[-1] += char
        elif char.isspace() or category in ("Cf", "Cc"):
            continue
        else:
            words.append(char)
            starts.append(position)
            in_run = goes_on
        end = position + 1
    return words, starts


def _is_ideograph(char: str) -> bool:
    code = ord(char)
    return 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF


def _tag_names(rows: Dataset, where: str, data: WordsDataSection) -> Names | None:
    """List the names of tag ids; None where the tags are strings. Raises: DataError: ids have no names."""
    feature = rows.features[data.label]
    inner = feature.feature if isinstance(feature, _LISTS) else None
    if isinstance(inner, ClassLabel):
        return list(inner.names)
    if isinstance(inner, Value) and inner.dtype.startswith(("int", "uint")):
        if data.label_names is None:
            raise DataError(
                f"{where}: data.label is {data.label!r}, a column of numbers without names; list the names of "
                "0, 1, ... in data.label_names"
            )
        return data.label_names
    _check_type(rows, data.label, where, "data.label", "strings or of numbers with names")
    return None


def _check_type(rows: Dataset, column: str, where: str, key: str, what: str) -> None:
    feature = rows.features[column]
    inner = feature.feature if isinstance(feature, _LISTS) else None
    if not (isinstance(inner, Value) and "string" in inner.dtype):
        held = feature.dtype if isinstance(feature, Value) else feature
        raise DataError(
            f"{where}: {key} is {column!r}, a column of {held}, not of lists of {what}; write lists in JSON Lines or "
            "Parquet, a CoNLL file, or texts with data.text and data.spans"
        )


def _of_lists(
    batch: Mapping[str, list[Any]], numbers: Sequence[int], words: str, label: str, names: Names | None, where: str
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {WORDS: [], TAGS: []}
    for number, of_row, tags in zip(numbers, batch[words], batch[label], strict=True):
        place = f"{where}: row {number} (from 0)"
        found[WORDS].append(check_words(of_row, place))
        if tags is None or len(tags) != len(of_row):
            have = "no tags" if tags is None else f"{len(tags)} tag(s)"
            raise DataError(f"{place} has {len(of_row)} word(s) and {have}; each word needs one tag")
        found[TAGS].append([_tag(tag, i, names, place) for i, tag in enumerate(tags)])
    return found


def _tag(tag: Any, position: int, names: Names | None, place: str) -> str:
    if names is not None and isinstance(tag, int) and 0 <= tag < len(names):
        return names[tag]
    if names is not None:
        raise DataError(f"{place}: word {position} (from 0) has the tag {tag!r}, but the ids are 0 to {len(names) - 1}")
    if not isinstance(tag, str) or not tag or tag != tag.strip():
        raise DataError(f"{place}: word {position} (from 0) has the tag {tag!r}, which must be a text without blanks")
    return tag


def _of_spans(
    batch: Mapping[str, list[Any]], numbers: Sequence[int], text: str, spans: str, scheme: TagScheme, where: str
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {WORDS: [], TAGS: [], TEXT: [], STARTS: []}
    for number, of_row, of_text in zip(numbers, batch[text], batch[spans], strict=True):
        place = f"{where}: row {number} (from 0)"
        if not isinstance(of_row, str):
            raise DataError(f"{place} has no text in column {text!r}, but {of_row!r:.60}")
        words, starts = divided(of_row)
        if not words:
            raise DataError(f"{place} has a text without words; remove the row")
        in_words = _spans_in_words(of_text, of_row, words, starts, place)
        found[WORDS].append(words)
        found[TAGS].append(tags_of(in_words, len(words), scheme))
        found[TEXT].append(of_row)
        found[STARTS].append(starts)
    return found


def _spans_in_words(spans: Any, text: str, words: Sequence[str], starts: Sequence[int], place: str) -> list[Span]:
    """Turn character spans into spans of words. Raises: DataError: a span is wrong."""
    if not isinstance(spans, list):
        raise DataError(f"{place} has no list of spans, but {spans!r:.60}; write [] where there is none")
    found: list[Span] = []
    for span in spans:
        start, end, label = _checked_span(span, text, place)
        inside = [i for i, (at, word) in enumerate(zip(starts, words)) if at < end and at + len(word) > start]
        shown = f"the span {start} to {end} ({text[start:end]!r:.60})"
        if not inside:
            raise DataError(f"{place}: {shown} holds no word")
        first, last = inside[0], inside[-1]
        for i, border in ((first, start), (last, end)):
            if starts[i] < border < starts[i] + len(words[i]):
                raise DataError(
                    f"{place}: {shown} cuts the word {words[i]!r} ({starts[i]} to {starts[i] + len(words[i])}) in two; "
                    "a span must hold whole words"
                )
        found.append(Span(first, last + 1, label))
    found.sort()
    for before, after in pairwise(found):
        if after.start < before.end:
            at = starts[after.start]
            raise DataError(f"{place}: two spans overlap at character {at}; a word can have one tag")
    return found


def label_of_span(span: Any) -> Any:
    """Take the label of a span, or its one label; None where there is none."""
    return _of_span(span, KEYS_OF_A_SPAN[2])


def _of_span(span: Any, keys: Names) -> Any:
    """Take the value of the first key that is set; of a list of one, as Label Studio writes labels, the one."""
    found = next((span[key] for key in keys if span.get(key) is not None), None) if isinstance(span, dict) else None
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _checked_span(span: Any, text: str, place: str) -> tuple[int, int, str]:
    start, end, label = (_of_span(span, keys) for keys in KEYS_OF_A_SPAN)
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(label, str)):
        raise DataError(
            f"{place}: a span must be {{start, end, label}}, two whole numbers and a text; got {span!r:.80}"
        )
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{place}: the span {start} to {end} is not in the text of {len(text)} characters (end not included)"
        )
    if not label.strip() or label != label.strip():
        raise DataError(f"{place}: the span {start} to {end} has the label {label!r}; it needs one without blanks")
    return start, end, label
