"""Sees for which task rows are, by the names and types of their columns, and says why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import pyarrow.compute

from nlp_ft.api.choices_seen import seen_choices, seen_first_index
from nlp_ft.api.column import Names, as_names, is_text
from nlp_ft.api.columns_seen import holds_spans
from nlp_ft.api.task_seen import Labels, seen_sets, seen_task
from nlp_ft.api.unread_forms import check_all_accepted, check_no_tagged_words, check_texts_are_texts
from nlp_ft.data.label_sets import INDICATORS
from nlp_ft.errors import DataError, listed

QUESTION_KEYS = ("question", "context", "answers")
WORDS_NAMES = ("tokens", "words")
TAGS_NAMES = ("ner_tags", "tags", "labels", "pos_tags")
SPANS = "spans"
CANDIDATES = "candidates"
FORM_COLUMNS = (*QUESTION_KEYS, "answer_start", "title", CANDIDATES, *WORDS_NAMES, *TAGS_NAMES, SPANS)
"""Columns by whose names a form is seen where the caller names none."""


@dataclass(frozen=True)
class View:
    """The rows of train, and what the caller says about their columns.

    Args:
        rows: the rows.
        text: the column with the text, or two for pairs.
        label: the column with the label, or one for each label or number.
        named: keys of `data` that the caller set, such as `question` or `label_separator`.
        class_names: column -> names of its ids, as in a `ClassLabel`.
        are_texts_only: whether the file can hold texts alone (CSV), so that a number is a text that reads as one.
    """

    rows: pyarrow.Table
    text: Names = "text"
    label: Names = "label"
    named: Mapping[str, Any] = field(default_factory=dict)
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    are_texts_only: bool = False

    def has(self, *names: str) -> bool:
        """Whether the rows have all these columns."""
        return set(names) <= set(self.rows.column_names)

    @property
    def has_text_and_label(self) -> bool:
        """Whether the rows have the columns that the caller names, or those of these names."""
        return self.has(*as_names(self.text), *as_names(self.label))

    def labels(self, name: str) -> Labels:
        """Take a label column."""
        return Labels(name, self.rows.column(name), name in self.class_names, self.are_texts_only)

    def holds_lists(self, name: str, test: Callable[[pyarrow.DataType], bool] = lambda kind: True) -> bool:
        """Whether a column is there and holds lists of values of a type."""
        if not self.has(name):
            return False
        kind = self.rows.schema.field(name).type
        is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
        return bool(is_list and test(kind.value_type))


@dataclass(frozen=True)
class Seen:
    """The task of some rows, why, the columns that it needs, key of `data` -> column(s), and other keys of `data`."""

    task: str
    reason: str
    columns: dict[str, Names]
    settings: dict[str, Any] = field(default_factory=dict)


def see(view: View) -> Seen:
    """See the task in the columns.

    Raises:
        DataError: the columns are of no task that there is.
    """
    if "answer" not in as_names(view.label):
        check_all_accepted(view.rows, "data")
    for task, columns_of in FORMS.items():
        if columns := columns_of(view):
            found = listed([f"{key} ({names})" for key, names in columns.items()])
            return Seen(task, f"there are columns for {found}", columns, _settings(view, columns))
    check_texts_are_texts(view.rows, [*as_names(view.text), *as_names(view.label)], "data")
    columns = {"text": view.text, "label": view.label}
    if "label_separator" in view.named:
        return Seen("multi_label_classification", "label_separator is set", columns)
    for name in as_names(view.label):
        if not view.has(name):
            if view.has("question", "context") and any(
                one.lower().startswith("answer") for one in view.rows.column_names
            ):
                return Seen(
                    "question_answering", "there are columns question and context", DEFAULTS["question_answering"]
                )
            return Seen("text_classification", f"column {name!r} is the label", columns)
    if isinstance(view.label, str):
        if isinstance(view.text, str):
            check_no_tagged_words(view.rows, view.text, view.label)
        if sets := seen_sets(view.labels(view.label)):
            separator, reason = sets
            return Seen("multi_label_classification", reason, columns, {"label_separator": separator})
        return Seen(*seen_task(view.labels(view.label)), columns)
    return Seen(*_of_label_columns([view.labels(name) for name in view.label]), columns)


def see_as(view: View, task: str) -> Seen:
    """Find the columns of rows whose task is given; some of these may not be there."""
    columns_of = FORMS.get(task)
    columns = columns_of(view) if columns_of else {"text": view.text, "label": view.label}
    settings = _settings(view, columns)
    return Seen(task, "as asked", columns or DEFAULTS.get(task, {}), settings)


def _settings(view: View, columns: Mapping[str, Names]) -> dict[str, Any]:
    """Choose the settings that the values decide: indices of candidates that count from 1."""
    names = [name for of_key in columns.values() for name in as_names(of_key)]
    is_seen = "candidates" in columns and "first_index" not in view.named and view.has(*names)
    return {"first_index": 1} if is_seen and seen_first_index(view.rows, columns) else {}


def names_of(section: Any) -> tuple[Names, Names]:
    """Name the columns of a recipe that hold the input, or the two of a pair, and what is learned of it."""
    if hasattr(section, "question"):
        return [section.question, section.context], section.answers
    if hasattr(section, "candidates"):
        return [*section.text_columns, *section.candidate_columns], section.label
    if hasattr(section, "words"):
        return (section.words, section.label) if section.text is None else (section.text, section.spans)
    return getattr(section, "text", "text"), section.label


def _question_columns(view: View) -> dict[str, Names]:
    """Name the columns of questions with answers; none where the rows have another form."""
    columns: dict[str, Names] = {key: view.named.get(key, key) for key in QUESTION_KEYS}
    is_named = any(key in view.named for key in QUESTION_KEYS)
    has_other = view.has_text_and_label and not {*as_names(view.text), *as_names(view.label)} <= set(QUESTION_KEYS)
    return columns if is_named or (view.has(*QUESTION_KEYS) and not has_other) else {}


def _word_columns(view: View) -> dict[str, Names]:
    """Name the columns of words and tags, or of texts and spans; none where the rows have another form."""
    if not isinstance(view.text, str) or not isinstance(view.label, str):
        return {}
    if "spans" in view.named or "words" in view.named:
        given = {"spans": view.named["spans"]} if "spans" in view.named else {"words": view.named["words"]}
        return {**given, **({"text": view.text} if "spans" in given else {"label": _tags_name(view)})}
    if view.holds_lists(view.text, is_text):
        return {"words": view.text, "label": _tags_name(view)}
    for name in (view.label, SPANS):
        if view.has(name, view.text) and holds_spans(view.rows.schema.field(name).type):
            return {"text": view.text, "spans": name}
    if view.has_text_and_label:
        return {}
    found = [name for name in WORDS_NAMES if view.holds_lists(name, is_text)]
    return {"words": found[0], "label": _tags_name(view)} if found and view.has(_tags_name(view)) else {}


def _tags_name(view: View) -> str:
    """Name the column of the tags: the one that the caller names, or one with a usual name."""
    label = as_names(view.label)[0]
    known = (name for name in TAGS_NAMES if view.holds_lists(name))
    return label if view.has(label) else next(known, label)


def _choice_columns(view: View) -> dict[str, Names]:
    """Name the columns of prompts, candidates and labels; none where the rows have another form."""
    candidates = view.named.get("candidates", CANDIDATES)
    if "candidates" not in view.named and not view.has_text_and_label and (found := seen_choices(view.rows)):
        return found
    is_seen = "candidates" in view.named or view.holds_lists(CANDIDATES, is_text)
    return {"text": view.text, "candidates": candidates, "label": view.label} if is_seen else {}


FORMS: dict[str, Callable[[View], dict[str, Names]]] = {
    "question_answering": _question_columns,
    "multiple_choice": _choice_columns,
    "token_classification": _word_columns,
}
"""Task whose rows are more than a text with labels -> what names its columns; nothing for rows of another form."""
DEFAULTS: dict[str, dict[str, Names]] = {
    "question_answering": {key: key for key in QUESTION_KEYS},
    "multiple_choice": {"candidates": CANDIDATES},
    "token_classification": {"words": "tokens", "label": "ner_tags"},
}
"""The columns of such a task where none is named and none is seen."""


def _of_label_columns(columns: Sequence[Labels]) -> tuple[str, str]:
    """See the task of several label columns. Raises: DataError: they hold neither 0 and 1 nor numbers."""
    shown = listed([labels.name for labels in columns], 4)
    values = [labels.distinct() for labels in columns]
    if all(isinstance(value, int) and value in INDICATORS for of in values for value in of):
        return "multi_label_classification", f"{len(columns)} columns hold 0 and 1: {shown}"
    for labels, of in zip(columns, values, strict=True):
        if wrong := [value for value in of if not isinstance(value, int | float)]:
            raise DataError(
                f"column {labels.name!r} holds {wrong[0]!r:.40}; several label columns hold 0 or 1 each, for labels, "
                "or a number each; one column with a list or a text holds labels, too"
            )
    return "text_regression", f"{len(columns)} columns hold numbers: {shown}"


def spread(rows: pyarrow.Table, label: Names, what: str) -> tuple[pyarrow.Table, Names]:
    """Make columns of a label column that holds a matrix: lists of one length, of 0 and 1 or of fractions.

    Args:
        rows: the rows.
        label: the label column; or the columns that a matrix of train became, for further rows.
        what: name of the rows in error messages.

    Returns:
        The rows, and their label column(s), such as `label_0`, `label_1` and `label_2`.

    Raises:
        DataError: the lists of fractions differ in length, or a matrix has not the width of that of train.
    """
    name, width = (label, None) if isinstance(label, str) else (label[0].removesuffix("_0"), len(label))
    if name not in rows.column_names or (width and label != _columns_of(name, width)):
        return rows, label
    column = rows.column(name).combine_chunks()
    if not (pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type)) or column.null_count:
        return rows, label
    lengths = pyarrow.compute.unique(column.value_lengths()).to_pylist()
    is_fraction = pyarrow.types.is_floating(column.type.value_type)
    if not is_fraction and (len(lengths) != 1 or lengths[0] < 2 or not _are_indicators(column.flatten())):
        return rows, label
    if len(lengths) != 1 or lengths[0] < 2 or (width and width != lengths[0]):
        raise DataError(
            f"{what}: column {name!r} holds lists of numbers of length {listed(map(str, lengths), 5)}; they must all "
            f"have {f'length {width}, as in train' if width else 'one length of 2 or more'}"
        )
    flat = column.flatten()
    names = _columns_of(name, lengths[0])
    kept = rows.drop_columns([name])
    for place, one in enumerate(names):
        kept = kept.append_column(one, flat.take(pyarrow.array(range(place, len(flat), lengths[0]))))
    return kept, names


def _columns_of(name: str, width: int) -> list[str]:
    return [f"{name}_{place}" for place in range(width)]


def _are_indicators(values: pyarrow.Array) -> bool:
    is_number = pyarrow.types.is_integer(values.type) or pyarrow.types.is_boolean(values.type)
    return bool(is_number and set(pyarrow.compute.unique(values).to_pylist()) <= {0, 1})
