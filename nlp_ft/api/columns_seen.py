"""Guesses which columns of a file hold texts, labels and splits, each with the reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow
import pyarrow.compute

from nlp_ft.api.choices_seen import candidate_columns
from nlp_ft.api.column import as_names, is_text
from nlp_ft.data.file_advice import HEADER, header_advice, looks_like_text
from nlp_ft.data.labels import NUMBER
from nlp_ft.errors import DataError, listed

TEXT_NAMES = ("text", "sentence", "content", "review", "message", "document", "body", "title", "question", "query")
LABEL_NAMES = (
    "label",
    "labels",
    "category",
    "class",
    "target",
    "intent",
    "sentiment",
    "score",
    "rating",
    "stars",
    "topic",
)
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("#1 string", "#2 string"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("query", "passage"),
)
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Split -> the words for it in a split column."""
MOST_TEXTS_OF_A_LABEL = 60
"""Characters of a label, on average; a column of longer texts holds texts."""
FEWEST_ROWS = 20
"""From this number of rows on, a column of other name holds no labels if it differs by row: in fewer, by chance."""
ID_NAME = re.compile(r"(?i:(.*[\W_])?(id|idx|index))|.*(ID|Id|Idx|Index)")
"""Names of columns of ids, such as tweet_id and rowID, and not paid."""


@dataclass(frozen=True)
class Columns:
    """The columns of texts and labels, and why."""

    text: list[str]
    text_reason: str
    label: str | list[str]
    label_reason: str


def holds_spans(kind: pyarrow.DataType) -> bool:
    """Whether a type is that of lists of spans: objects with a start and an end."""
    inner = kind.value_type if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) else kind
    names: set[str] = {field.name for field in inner} if pyarrow.types.is_struct(inner) else set()
    return bool(names & {"start", "start_offset"} and names & {"end", "end_offset"})


def seen_columns(table: pyarrow.Table, where: str, split: str | None) -> Columns:
    """Guess the columns by their names, types and values.

    Args:
        table: all rows of the file.
        where: name of the file in error messages.
        split: the column that names the splits, if there is one.

    Raises:
        DataError: no column holds texts, none is left that can hold labels, or their names look like a row.
    """
    names = list(table.column_names)
    texts = {
        name: _mean_length(table.column(name))
        for name in names
        if name != split and _is_text(table, name) and not _are_numbers(table, name)
    }
    text, text_reason = _text_columns(names, texts, where, table)
    rest = [name for name in names if name not in {split, *text}]
    label, label_reason = _label_column(table, rest, where)
    if (
        isinstance(label, str)
        and label in map(str, _distinct(table, label))
        and any(looks_like_text(name) or name.endswith((".", "!", "?")) for name in text)
    ):
        raise DataError(f"{where} has the columns {listed(names)}, which look like a row; {HEADER}")
    return Columns(text, text_reason, label, label_reason)


def split_column(table: pyarrow.Table) -> tuple[str | None, dict[str, str]]:
    """Find the column that names the split of each row; and split (`train`, ...) -> its word there."""
    words = {word: split for split, of_split in SPLIT_NAMES.items() for word in of_split}
    for name in table.column_names:
        if _is_text(table, name):
            values = {value for value in _distinct(table, name) if value is not None}
            if values and len(values) < 6 and {str(value).lower() for value in values} <= words.keys():
                found = {words[str(value).lower()]: str(value) for value in values}
                if "train" in found and len(found) == len(values):
                    return name, found
    return None, {}


def _text_columns(
    names: Sequence[str], texts: dict[str, float], where: str, table: pyarrow.Table
) -> tuple[list[str], str]:
    lower = {name.lower(): name for name in texts}
    for pair in PAIR_NAMES:
        if all(name in lower for name in pair):
            return [lower[name] for name in pair], "a pair of texts, by their names"
    known = [lower[name] for name in TEXT_NAMES if name in lower]
    if not texts:
        kinds = [f"{name} ({table.schema.field(name).type})" for name in names]
        raise DataError(
            f"{where} has no column of texts; its columns are: {listed(kinds)}. A draft needs a text and a label or "
            "number in each row; a recipe for images is in docs/images.md"
        )
    if known:
        return [known[0]], "by its name"
    longest = max(texts, key=lambda name: texts[name])
    return [longest], f"the column with the longest texts, {texts[longest]:.0f} characters on average"


def _label_column(table: pyarrow.Table, rest: Sequence[str], where: str) -> tuple[str | list[str], str]:
    usable = [name for name in rest if _may_be_label(table, name)]
    lower = {name.lower(): name for name in usable}
    known = [lower[name] for name in LABEL_NAMES if name in lower]
    if known:
        return known[0], "by its name"
    usable = [name for name in usable if not _differs_by_row(table, name)]
    if not usable:
        raise DataError(
            f"{where} has no column for the label: beside the text it has: {listed(rest) or 'none'}"
            f"{_of_one_value(table, rest)}{_of_own_values(table, rest)}; each row needs a text and a label or number, "
            f"in two columns{header_advice(table.column_names)}{_of_choices(table.column_names)}"
        )
    for test, what in ((_are_indicators, "0 and 1"), (_are_fractions, "fractions")):
        if len(of := [name for name in usable if test(table, name)]) > 1:
            return of, f"the {len(of)} columns of {what}"
    fewest = min(usable, key=lambda name: len(_distinct(table, name)))
    return fewest, f"the column with the fewest different values, {len(_distinct(table, fewest))}"


def _of_one_value(table: pyarrow.Table, rest: Sequence[str]) -> str:
    """Say which of the columns have one value in all rows, so that there is nothing to learn."""
    same = [name for name in rest if _is_text(table, name) and len(_distinct(table, name)) == 1]
    return f" ({listed(same)}: the same value in all rows)" if same else ""


def _of_own_values(table: pyarrow.Table, rest: Sequence[str]) -> str:
    """Say which of the columns differ by row, as sentences, names and numbers of rows do."""
    own = [name for name in rest if _may_be_label(table, name) and _differs_by_row(table, name)]
    return f" ({listed(own)}: another value in nearly each row; call it label if it is one)" if own else ""


def _differs_by_row(table: pyarrow.Table, name: str) -> bool:
    """Whether most texts of a column occur once, as sentences do, or all whole numbers, as numbers of rows and ids do.

    Whole numbers to learn, such as prices, may all differ, too: but they do not rise from row to row.
    """
    if table.num_rows < FEWEST_ROWS or pyarrow.types.is_list(table.schema.field(name).type):
        return False
    values = _distinct(table, name)
    if _is_text(table, name) and not _are_numbers(table, name):
        return bool(len(values) > table.num_rows / 2)
    if len(values) < table.num_rows or None in values or _are_fractions(table, name):
        return False
    numbers = [float(str(value)) for value in values]
    return bool(ID_NAME.fullmatch(name)) or numbers == sorted(numbers)


def _of_choices(names: Sequence[str]) -> str:
    """Say, behind a semicolon, that there are columns of candidates, but not which one is right."""
    found = candidate_columns(names)
    right = "and none that names the right one of each row: put one beside them, such as label, with its index from 0"
    return f"; there are columns of candidates ({listed(as_names(found))}), {right}" if found else ""


def _are_indicators(table: pyarrow.Table, name: str) -> bool:
    values = [] if pyarrow.types.is_list(table.schema.field(name).type) else _distinct(table, name)
    return {str(value) for value in values} in ({"0", "1"}, {"True", "False"}, {"0.0", "1.0"})


def _are_fractions(table: pyarrow.Table, name: str) -> bool:
    values = [str(value) for value in _distinct(table, name) if value is not None]
    return bool(values) and all(NUMBER.fullmatch(value) for value in values) and any("." in value for value in values)


def _may_be_label(table: pyarrow.Table, name: str) -> bool:
    kind = table.schema.field(name).type
    is_plain = _is_text(table, name) or any(
        test(kind)
        for test in (
            pyarrow.types.is_integer,
            pyarrow.types.is_floating,
            pyarrow.types.is_boolean,
            pyarrow.types.is_list,
        )
    )
    if pyarrow.types.is_list(kind) and pyarrow.types.is_struct(kind.value_type):
        return holds_spans(kind)
    if not is_plain or (_is_text(table, name) and _mean_length(table.column(name)) > MOST_TEXTS_OF_A_LABEL):
        return False
    return pyarrow.types.is_list(kind) or len(_distinct(table, name)) > 1


def _is_text(table: pyarrow.Table, name: str) -> bool:
    return is_text(table.schema.field(name).type)


def _are_numbers(table: pyarrow.Table, name: str) -> bool:
    """Whether every text reads as a number, as in CSV, which holds texts alone."""
    return all(value is None or NUMBER.fullmatch(str(value)) for value in _distinct(table, name))


def _distinct(table: pyarrow.Table, name: str) -> list[object]:
    if pyarrow.types.is_list(table.schema.field(name).type):
        return [None] * table.num_rows
    values: list[object] = pyarrow.compute.unique(table.column(name)).to_pylist()
    return values


def _mean_length(column: pyarrow.ChunkedArray) -> float:
    return float(pyarrow.compute.mean(pyarrow.compute.utf8_length(column)).as_py() or 0)
