"""Sees in the label column which task the rows are for, and says why."""

from dataclasses import dataclass

import pyarrow
import pyarrow.compute

from nlp_ft.data.label_sets import SEPARATORS, sets_of
from nlp_ft.data.labels import NUMBER
from nlp_ft.errors import DataError

FEW_NUMBERS = 20
MOST_IDS = 200
"""Whole numbers are labels if there are few, or if they are the ids 0, 1, 2, ... of at most this many labels."""


@dataclass(frozen=True)
class Labels:
    """The label column of train.

    Args:
        name: name of the column.
        values: its values.
        are_names: whether the values are ids of names, as in a `ClassLabel`.
        are_texts_only: whether the file can hold texts alone (CSV), so that a number is a text that reads as one.
    """

    name: str
    values: pyarrow.ChunkedArray
    are_names: bool = False
    are_texts_only: bool = False

    @property
    def kind(self) -> pyarrow.DataType:
        """The type of the values."""
        kind = self.values.type
        return kind.value_type if pyarrow.types.is_dictionary(kind) else kind

    @property
    def are_lists(self) -> bool:
        """Whether each row holds a list."""
        return bool(pyarrow.types.is_list(self.kind) or pyarrow.types.is_large_list(self.kind))

    def distinct(self) -> list[object]:
        """List the different values, without the missing one; texts that read as numbers are numbers in CSV."""
        found = [value for value in pyarrow.compute.unique(self.values).to_pylist() if value is not None]
        if self.are_texts_only and found and all(NUMBER.fullmatch(value) for value in found):
            return [int(value) if value.lstrip("+-").isdigit() else float(value) for value in found]
        return found


def seen_task(labels: Labels) -> tuple[str, str]:
    """See the task in the values of the label column.

    Returns:
        The task, and the reason for it in words.

    Raises:
        DataError: values of this kind belong to no task that there is.
    """
    column = f"column {labels.name!r} holds"
    if labels.are_lists:
        return "multi_label_classification", f"{column} lists of labels"
    if labels.are_names or pyarrow.types.is_boolean(labels.kind):
        return "text_classification", f"{column} labels"
    values = labels.distinct() if not pyarrow.types.is_nested(labels.kind) else [labels.kind]
    numbers = [value for value in values if isinstance(value, int | float)]
    if values and len(numbers) == len(values):
        return _of_numbers(numbers, column)
    if all(isinstance(value, str) for value in values):
        return "text_classification", f"{column} {len(values)} different texts"
    raise DataError(
        f"{column} {labels.kind}, in which no task can be seen; labels are texts or whole numbers, and numbers to "
        "learn are fractions; or say it with task=..."
    )


def seen_sets(labels: Labels) -> tuple[str, str] | None:
    """See texts of several labels each, such as `joy|surprise`: parted, they are fewer labels, half of them also alone.

    Returns:
        What stands between the labels, and the reason in words; None where each text is one label.
    """
    if not (pyarrow.types.is_string(labels.kind) or pyarrow.types.is_large_string(labels.kind)):
        return None
    values = {value for value in pyarrow.compute.unique(labels.values).to_pylist() if value}
    if all(NUMBER.fullmatch(value.replace(",", ".")) for value in values):
        return None  # "2,5" may be two labels or a number
    for separator in SEPARATORS:
        several = sorted(value for value in values if separator in value)
        found = {label for labels in sets_of(list(values), separator) for label in labels}
        if several and len(found) < len(values) and 2 * len(found & values) >= len(found):
            reason = f"column {labels.name!r} holds texts of several labels, such as {several[0]!r}"
            return separator, f"{reason}; parted at {separator!r} they are {len(found)} labels"
    return None


def _of_numbers(values: list[int | float], column: str) -> tuple[str, str]:
    fractions = [value for value in values if isinstance(value, float)]
    if not fractions:
        are_ids = len(values) <= MOST_IDS and sorted(values) == list(range(len(values)))
        found = f"{column} {len(values)} different whole numbers"
        if are_ids or len(values) <= FEW_NUMBERS:
            return "text_classification", found
        return "text_regression", f"{found}, too many for labels"
    broken = next((value for value in fractions if not value.is_integer()), None)
    if broken is None:
        return "text_regression", f"{column} numbers of type float; of type int, a few would be labels"
    return "text_regression", f"{column} fractions such as {broken:g}"
