"""Labels that are sets: any number of labels a text, in a list, in a separated text, or in columns of 0 and 1."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from nlp_ft.data.columns import unique_values
from nlp_ft.data.labels import LabelValue, find_labels, labels_of_model
from nlp_ft.data.sources import label_columns, load_raw_splits, text_columns
from nlp_ft.data.splits import draw_train_rows, draw_validation_by_labels
from nlp_ft.errors import DataError, listed
from nlp_ft.recipe.sections import is_share
from nlp_ft.recipe.text import TextDataSection

INDICATORS: dict[Any, int] = {0: 0, 1: 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
INDICATORS |= {f(word): value for word, value in (("false", 0), ("true", 1)) for f in (str.lower, str.title, str.upper)}
"""Value in the column of a label -> 1 if the row has the label, else 0; `False` and `0.0` are keys too, being 0."""
SEPARATORS = ("|", ";", ",", "\t")
"""Separators that a message proposes if they are in the data."""
MOST_LABELS = 5000
"""Most labels of a data set: each row has a number for each of them."""


@dataclass(frozen=True)
class LabelSets:
    """Any number of labels for each text. See `Labels`.

    Args:
        columns: the label column; or one column of 0 and 1 for each label, in the order of the ids.
        separator: what stands between the labels of a text; None where the column holds lists.
        name_of: value in the column -> label name, in the order of the ids.
    """

    columns: list[str]
    separator: str | None
    name_of: dict[LabelValue, str]

    @property
    def names(self) -> list[str]:
        """The label names in the order of the ids."""
        return list(self.name_of.values())

    @property
    def feature(self) -> List:
        """For each label, 1 if the row has it and 0 if not."""
        return List(Value("int8"))

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> list[list[int]]:
        """Mark the labels that each row has."""
        if len(self.columns) > 1:
            return [[INDICATORS[value] for value in row] for row in zip(*(batch[name] for name in self.columns))]
        ids = {value: i for i, value in enumerate(self.name_of)}
        encoded = []
        for values in sets_of(batch[self.columns[0]], self.separator):
            row = [0] * len(ids)
            for value in values:
                row[ids[value]] = 1
            encoded.append(row)
        return encoded

    def indicators(self, rows: Dataset) -> np.ndarray:
        """Encode all rows of a split: 1 for each label that a row has and 0 for the others, (rows, labels), int8."""
        return np.array(self.encode(rows.select_columns(self.columns)[:]), np.int8)

    @classmethod
    def load(cls, data: TextDataSection, seed: int = 0) -> tuple[dict[str, Dataset], "LabelSets"]:
        """Read raw splits; each label keeps its share of the rows in a drawn validation split. See `LabelKind.load`."""
        raw, columns = load_raw_splits(data), label_columns(data)
        labels = cls(columns, data.label_separator, _find(raw, data))
        if is_share(data.validation):
            indicators = labels.indicators(raw["train"])
            raw = draw_validation_by_labels(raw, indicators, text_columns(data), data.validation)
        return draw_train_rows(raw, None, data.train_rows, seed), labels

    @classmethod
    def of_model(cls, rows: Dataset, where: str, data: TextDataSection, label_names: Sequence[str]) -> "LabelSets":
        """Match label sets with the labels of a trained model. See `LabelKind.of_model`."""
        columns = label_columns(data)
        if len(columns) > 1:
            _check_indicators(rows, where, columns)
            return cls(columns, None, {name: name for name in label_names})
        flat = _flat(rows, columns[0], where, data.label_separator)
        are_given = data.label_names is not None
        name_of = labels_of_model(flat, where, columns[0], label_names, are_given) if len(flat) else {}
        return cls(columns, data.label_separator, name_of or {name: name for name in label_names})


def sets_of(values: Sequence[Any], separator: str | None) -> list[Sequence[Any]]:
    """Take lists as they are, and part texts at the separator; blanks around a label do not belong to it.

    Args:
        values: a list or a text for each row; a missing text stands for no label.
        separator: what stands between the labels of a text; None where the values are lists.
    """
    if separator is None:
        return list(values)
    parted = [(text or "").strip(" ").split(separator) if (text or "").strip() else [] for text in values]
    may_be_empty = bool(separator.strip())
    return [[label.strip() for label in labels if may_be_empty or label.strip()] for labels in parted]


def _find(raw: Mapping[str, Dataset], data: TextDataSection) -> dict[LabelValue, str]:
    """Find the labels of a data set, as `find_labels` does for classes. Raises: DataError."""
    columns = label_columns(data)
    if len(columns) > 1:
        for split, rows in raw.items():
            _check_indicators(rows, split, columns)
        if not any(1 in map(INDICATORS.get, unique_values(raw["train"], name)) for name in columns):
            raise DataError("data.label: no row of train has a label; every column holds only 0")
        return {name: name for name in columns}
    [column] = columns
    flat = {split: _flat(rows, column, split, data.label_separator) for split, rows in raw.items()}
    if not len(flat["train"]):
        raise DataError(f"data.label: no row of train has a label in column {column!r}; is it the right column?")
    found = find_labels(
        {split: of_split for split, of_split in flat.items() if len(of_split)}, column, data.label_names
    )
    if len(found) > MOST_LABELS:
        raise DataError(
            f"data.label: column {column!r} of train has {len(found):,} different labels, more than {MOST_LABELS:,}; "
            "is data.label_separator the right one?"
        )
    return found


def _check_indicators(rows: Dataset, split: str, columns: Sequence[str]) -> None:
    """Check columns that hold 0 or 1 for a label. Raises: DataError: one holds something else."""
    for name in columns:
        feature = rows.features[name]
        values = unique_values(rows, name) if isinstance(feature, Value | ClassLabel) else [feature]
        if wrong := [value for value in values if _unhashable(value) or value not in INDICATORS]:
            where = _rows_where(rows[name], lambda value: _unhashable(value) or value not in INDICATORS)
            raise DataError(
                f"data.label: column {name!r} of {split} must hold 0 or 1 in every row, 1 for a row with that label; "
                f"got {listed(map(repr, wrong), 5)} ({where})"
            )


def _unhashable(value: Any) -> bool:
    return value.__hash__ is None


def _flat(rows: Dataset, column: str, split: str, separator: str | None) -> Dataset:
    """Make a dataset of the different labels of all rows, under the name of the column.

    Raises:
        DataError: the column holds no label sets of the form that the recipe says, or a label is missing in one.
    """
    inner = _type_of_label(rows, column, split, separator)
    values = rows.select_columns([column])[column][:]
    if separator is None and (where := _rows_where(values, lambda value: value is None)):
        raise DataError(
            f"{split} has no list of labels in column {column!r} of {where}; write [] for a row without a label"
        )
    sets = sets_of(values, separator)
    missing = {None, "", -1} if isinstance(inner, ClassLabel) else {None, ""}
    if where := _rows_where(sets, lambda labels: not missing.isdisjoint(labels)):
        between = "" if separator is None else f", such as nothing before or after {separator!r}"
        raise DataError(f"{split} has an empty label in column {column!r} of {where}{between}; remove it")
    found = dict.fromkeys(label for labels in sets for label in labels)
    return Dataset.from_dict({column: list(found)}, features=Features({column: inner}))


def _type_of_label(rows: Dataset, column: str, split: str, separator: str | None) -> Any:
    """Find the type of a single label. Raises: DataError: the column is of another form than the recipe says."""
    feature = rows.features[column]
    if isinstance(feature, List | LargeList):
        if separator is not None:
            raise DataError(
                f"data.label_separator {separator!r} parts texts, but column {column!r} of {split} holds lists; leave "
                "label_separator out"
            )
        if not isinstance(feature.feature, Value | ClassLabel):
            raise DataError(
                f"data.label: the lists in column {column!r} of {split} must hold strings or whole numbers, got "
                f"{feature.feature}"
            )
        # Where every list is empty, nothing says what it could hold.
        return Value("string") if feature.feature == Value("null") else feature.feature
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string", "null"):
        if separator is None:
            texts = [text for text in unique_values(rows, column) if text]
            seen = next((sign for sign in SEPARATORS if any(sign in text for text in texts)), SEPARATORS[0])
            raise DataError(
                f"data.label: column {column!r} of {split} holds texts; say what is between the labels of a text with "
                f"data.label_separator, such as {seen!r}"
            )
        return Value("string")
    held = getattr(feature, "dtype", feature)
    raise DataError(
        f"data.label: column {column!r} of {split} holds {held}; expected a list of labels, a text with "
        "data.label_separator between them, or in data.label a list of columns of 0 and 1, one for each label"
    )


def _rows_where(values: Sequence[Any], is_wrong: Callable[[Any], bool]) -> str:
    """Name the rows whose value is wrong; an empty text if there are none."""
    wrong = [str(row) for row, value in enumerate(values) if is_wrong(value)]
    return f"rows {listed(wrong, 5)}, from 0" if wrong else ""
