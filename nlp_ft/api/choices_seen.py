"""Sees multiple choice in the columns of a file: a prompt, its candidates, and the right one of them."""

import re
from collections.abc import Mapping, Sequence

import pyarrow

from nlp_ft.data.choices.rows import index_of
from nlp_ft.errors import DataError, listed

LIST_NAMES = ("candidates", "choices", "endings", "options", "alternatives")
"""Columns that hold a list of candidates in each row."""
STEMS = ("ending", "choice", "option", "candidate", "alternative", "answer", "solution", "sol", "op")
MARKS = ("0123456789", "123456789", "abcdefghij")
"""Names of columns that hold a candidate each, as in `ending0` and `option_a`: a stem, and a number or a letter."""
ANSWER_NAMES = (
    "label",
    "answer",
    "answer_key",
    "answerkey",
    "answer_idx",
    "answer_index",
    "correct",
    "correct_answer",
    "correct_option",
    "gold",
    "target",
)
PROMPT_PAIRS = (("sent1", "sent2"), ("context", "question"), ("passage", "question"), ("article", "question"))
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


def seen_choices(table: pyarrow.Table) -> dict[str, str | list[str]]:
    """Name the columns of prompt, candidates and label: key of `data` -> column(s); nothing for rows of another form.

    Raises:
        DataError: the answers are indices or letters, but not all of them name a candidate; as indices from 1 do.
    """
    candidates = candidate_columns(table.column_names)
    if not candidates or not all(_may_hold(table, name, candidates) for name in as_list(candidates)):
        return {}
    rest = [name for name in table.column_names if name not in as_list(candidates)]
    label = _label(table, candidates, rest)
    prompt = _prompt(table, [name for name in rest if name != label])
    return {"text": prompt, "candidates": candidates, "label": label} if label and prompt else {}


def candidate_columns(names: Sequence[str]) -> str | list[str]:
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
    letters = _numbered(by_lower, "", MARKS[-1])
    # Two columns `a` and `b` are a pair of texts.
    return letters if len(letters) > 2 else []


def as_list(names: str | list[str]) -> list[str]:
    """List one name or several."""
    return [names] if isinstance(names, str) else names


def _numbered(by_lower: Mapping[str, str], stem: str, marks: str) -> list[str]:
    """List the columns of a stem with the marks in their order, as far as they go without a gap."""
    found = []
    for mark in marks:
        name = next((name for name in by_lower if re.fullmatch(rf"{stem}[_ -]?{mark}", name)), None)
        if name is None:
            break
        found.append(by_lower[name])
    return found


def _label(table: pyarrow.Table, candidates: str | list[str], rest: Sequence[str]) -> str:
    """Name the column that names a candidate in every row that is looked at, if there is one. Raises: DataError."""
    head = table.slice(0, ROWS_CHECKED)
    columns = [head.column(name).to_pylist() for name in as_list(candidates)]
    given = columns[0] if isinstance(candidates, str) else [list(row) for row in zip(*columns, strict=True)]
    known = [name for wanted in ANSWER_NAMES for name in rest if name.lower() == wanted]
    for name in dict.fromkeys([*known, *rest]):
        labels = head.column(name).to_pylist()
        try:
            for row, (label, of_row) in enumerate(zip(labels, given, strict=True)):
                index_of(label, of_row or [], f"row {row} (from 0)")
        except DataError as error:
            if name in known and all(re.fullmatch(r"\s*([0-9]+|[A-Za-z])\s*", str(label)) for label in labels):
                raise DataError(
                    f"column {name!r} names one of the candidates ({listed(as_list(candidates))}), but {error}; "
                    "indices count from 0, and letters from A"
                ) from None
        else:
            return name
    return ""


def _prompt(table: pyarrow.Table, rest: Sequence[str]) -> str | list[str]:
    """Name the column of the prompt, or two; nothing where there is none."""
    texts = {name.lower(): name for name in rest if _is_text(table.schema.field(name).type)}
    for pair in PROMPT_PAIRS:
        if all(name in texts for name in pair):
            return [texts[name] for name in pair]
    return next((texts[name] for name in PROMPT_NAMES if name in texts), "")


def _may_hold(table: pyarrow.Table, name: str, candidates: str | list[str]) -> bool:
    """Whether the type of a column is that of lists of candidates, or of a candidate each."""
    kind = table.schema.field(name).type
    if isinstance(candidates, list):
        return _is_text(kind)
    # With names: a struct of the two lists, or a list of structs.
    kind = _of_texts(kind)
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
    return is_list and _is_text(_of_texts(kind.value_type))


def _of_texts(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type of the field `text` of a struct, if it has one; any other type itself."""
    place = kind.get_field_index("text") if pyarrow.types.is_struct(kind) else -1
    return kind.field(place).type if place >= 0 else kind


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))
