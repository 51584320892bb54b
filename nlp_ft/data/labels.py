"""Labels: from the values of a column to ids 0..num_labels-1 and back to names."""

from collections import Counter
from collections.abc import Mapping, Sequence

from datasets import ClassLabel, Dataset, Value

from nlp_ft.data.sources import did_you_mean
from nlp_ft.errors import DataError

LabelValue = str | int


def find_labels(raw: Mapping[str, Dataset], column: str, label_names: Sequence[str] | None) -> dict[LabelValue, str]:
    """Value in the column -> label name, in the order of the ids.

    Raises:
        DataError: a missing label, a type other than string or whole number, fewer than two labels, or a label that
            train does not have.
    """
    values = {split: _values(rows, column, split) for split, rows in raw.items()}
    found = sorted(values["train"], key=lambda value: (isinstance(value, str), value))
    feature = raw["train"].features[column]
    if isinstance(feature, ClassLabel):
        labels: dict[LabelValue, str] = dict(enumerate(label_names or feature.names))
    elif label_names is None:
        labels = {value: str(value) for value in found}
    elif all(isinstance(value, str) for value in found):
        labels = {name: name for name in label_names}
    else:
        labels = dict(enumerate(label_names))
    if len(labels) < 2:
        raise DataError(f"classification needs two labels or more; column {column!r} of train holds only: {found}")
    for split, present in values.items():
        _refuse_unknown(present, labels, split, column, listed=label_names is not None)
    return labels


def _values(rows: Dataset, column: str, split: str) -> set[LabelValue]:
    feature = rows.features[column]
    dtype = feature.dtype if isinstance(feature, Value | ClassLabel) else str(feature)
    if not (dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))):
        raise DataError(f"labels must be strings or whole numbers; column {column!r} of {split} holds {dtype}")
    values = rows.unique(column)
    if any(value is None or value == "" or (isinstance(feature, ClassLabel) and value == -1) for value in values):
        where = [i for i, value in enumerate(rows[column]) if value is None or value in ("", -1)]
        shown = ", ".join(str(i) for i in where[:5])
        raise DataError(f"{len(where)} row(s) of {split} have no label in column {column!r}: rows {shown} (from 0)")
    return set(values)


def _refuse_unknown(
    present: set[LabelValue], labels: Mapping[LabelValue, str], split: str, column: str, listed: bool
) -> None:
    unknown = sorted(map(str, present - labels.keys()))
    if unknown:
        source = "data.label_names" if listed else "the train split"
        hint = did_you_mean(unknown[0], [str(value) for value in labels])
        raise DataError(
            f"{split} has label(s) that {source} does not have: {', '.join(unknown[:5])} (column {column!r}){hint}; "
            "add training rows, remove those rows, or list every label in data.label_names"
        )


def label_counts(label_ids: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Label name -> rows, for every label, in the order of the ids."""
    counts = Counter(label_ids)
    return {name: counts.get(i, 0) for i, name in enumerate(names)}
