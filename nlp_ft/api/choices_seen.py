"""Sees multiple choice in the columns of a file: a prompt, its candidates, and the right one of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from nlp_ft.api.column import Names, as_names, is_text
from nlp_ft.data.choices.rows import index_of, texts_and_names
from nlp_ft.errors import DataError, listed

LIST_NAMES = ("candidates", "choices", "endings", "options", "alternatives")
"""Columns that hold a list of candidates in each row."""
STEMS = ("ending", "choice", "option", "candidate", "alternative", "answer", "mc_answer", "solution", "sol", "op")
MARKS = ("0123456789", "123456789", "abcdefghij")
"""Names of columns that hold a candidate each, as in `ending0` and `option_a`: a stem, and a number or a letter."""
RIGHT_NAMES = ("correct_answer", "right_answer", "correct", "answer")
WRONG_STEMS = ("distractor", "wrong_answer", "incorrect_answer")
"""A column of right candidates, and the stems of those that hold the wrong ones of each row, as in SciQ."""
ANSWER_NAMES = (
    "label",
    "answer",
    "answer_key",
    "answerkey",
    "answer_idx",
    "answer_index",
    "correct",
    "correct_answer",
    "correct_answer_num",
    "correct_option",
    "gold",
    "target",
)
PROMPT_PAIRS = (
    ("sent1", "sent2"),
    ("context", "question"),
    ("passage", "question"),
    ("flores_passage", "question"),
    ("article", "question"),
    ("premise", "question"),
)
PROMPT_NAMES = (
    "prompt",
    "question",
    "text",
    "ctx",
    "context",
    "premise",
    "sentence",
    "goal",
    "query",
    "stem",
    "question_stem",
)
ROWS_CHECKED = 1000


def seen_choices(table: pyarrow.Table) -> dict[str, Names]:
    """Name the columns of prompt, candidates and label: key of `data` -> column(s); nothing for rows of another form.

    Raises:
        DataError: the answers are indices or letters, but not all of them name a candidate; as indices from 1 do.
    """
    candidates = candidate_columns(table.column_names)
    if not candidates or not all(_may_hold(table, name, candidates) for name in as_names(candidates)):
        return {}
    rest = [name for name in table.column_names if name not in as_names(candidates)]
    label = _label(table, candidates, rest)
    prompt = _prompt(table, [name for name in rest if name != label])
    return {"text": prompt, "candidates": candidates, "label": label} if label and prompt else {}


def candidate_columns(names: Sequence[str]) -> Names:
    """Name the column of lists of candidates, or the columns of a candidate each; nothing where there are none."""
    by_lower = {name.lower(): name for name in names}
    for name in LIST_NAMES:
        if name in by_lower:
            return by_lower[name]
    for stem in STEMS:
        for marks in MARKS:
            found = _numbered(by_lower, stem, marks)
            if len(found) > 1:
                return found
    right = next((by_lower[name] for name in RIGHT_NAMES if name in by_lower), None)
    for wrong in (_numbered(by_lower, stem, MARKS[1]) for stem in WRONG_STEMS):
        if right and wrong:
            return [right, *wrong]
    letters = _numbered(by_lower, "", MARKS[-1])
    # Two columns `a` and `b` are a pair of texts.
    return letters if len(letters) > 2 else []


def seen_first_index(table: pyarrow.Table, columns: Mapping[str, Names]) -> int:
    """Say whether labels count from 0 or from 1; from 1 if only so each names a candidate of its row."""
    if _holds_the_right_one(columns["candidates"], str(columns["label"])):
        return 0
    given, labels = given_candidates(table, columns["candidates"]), table.column(str(columns["label"])).to_pylist()
    return int(_wrong(labels, given, 0) is not None and _count_from_1(labels, given))


def _numbered(by_lower: Mapping[str, str], stem: str, marks: str) -> list[str]:
    """List the columns of a stem with the marks in their order, as far as they go without a gap."""
    found = []
    for mark in marks:
        name = next((name for name in by_lower if re.fullmatch(rf"{stem}[_ -]?{mark}", name)), None)
        if name is None:
            break
        found.append(by_lower[name])
    return found


def _label(table: pyarrow.Table, candidates: Names, rest: Sequence[str]) -> str:
    """Name the column that names a candidate in every row that is looked at, if there is one. Raises: DataError."""
    if _holds_the_right_one(candidates, candidates[0]):
        return candidates[0]
    head = table.slice(0, ROWS_CHECKED)
    given = given_candidates(head, candidates)
    known = [name for wanted in ANSWER_NAMES for name in rest if name.lower() == wanted]
    for name in dict.fromkeys([*known, *rest]):
        labels = head.column(name).to_pylist()
        wrong = _wrong(labels, given, 0)
        if wrong is None or (name in known and _count_from_1(labels, given)):
            return name
        if name in known and all(re.fullmatch(r"\s*([0-9]+|[A-Za-z])\s*", str(label)) for label in labels):
            raise DataError(
                f"column {name!r} names one of the candidates ({listed(as_names(candidates))}), but {wrong}; indices "
                "count from 0 or from 1, and letters from A"
            )
    return ""


def _holds_the_right_one(candidates: Names, label: str) -> bool:
    """Whether the label is a column of candidates itself, which holds the right one in each row."""
    return isinstance(candidates, list) and label in candidates and label.lower() in RIGHT_NAMES


def given_candidates(table: pyarrow.Table, candidates: Names) -> list[Any]:
    """List the candidates of each row, as they stand in their column or in a list."""
    columns = [table.column(name).to_pylist() for name in as_names(candidates)]
    return columns[0] if isinstance(candidates, str) else [list(row) for row in zip(*columns, strict=True)]


def _count_from_1(labels: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether labels name candidates as indices from 1. Where each is also the text of a candidate, it may be that."""
    are_texts = all(label in texts_and_names(of_row or [])[0] for label, of_row in zip(labels, given, strict=True))
    return not are_texts and _wrong(labels, given, 1) is None


def _wrong(labels: Sequence[Any], given: Sequence[Any], first: int) -> DataError | None:
    """Say which label names no candidate of its row, if indices count from `first`."""
    try:
        for row, (label, of_row) in enumerate(zip(labels, given, strict=True)):
            index_of(label, of_row or [], f"row {row} (from 0)", first)
    except DataError as error:
        return error
    return None


def _prompt(table: pyarrow.Table, rest: Sequence[str]) -> Names:
    """Name the column of the prompt, or two; nothing where there is none."""
    texts = {name.lower(): name for name in rest if is_text(table.schema.field(name).type)}
    for pair in PROMPT_PAIRS:
        if all(name in texts for name in pair):
            return [texts[name] for name in pair]
    return next((texts[name] for name in PROMPT_NAMES if name in texts), "")


def _may_hold(table: pyarrow.Table, name: str, candidates: Names) -> bool:
    """Whether the type of a column is that of lists of candidates, or of a candidate each."""
    kind = table.schema.field(name).type
    if isinstance(candidates, list):
        return is_text(kind)
    # With names: a struct of the two lists, or a list of structs.
    kind = _of_texts(kind)
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    return is_list and is_text(_of_texts(kind.value_type))


def _of_texts(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type of the field `text` of a struct, if it has one; any other type itself."""
    place = kind.get_field_index("text") if pyarrow.types.is_struct(kind) else -1
    return kind.field(place).type if place >= 0 else kind
