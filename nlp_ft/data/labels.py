"""Labels: from the values of a column to ids 0..num_labels-1 and back to names."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import ClassLabel, Dataset, Value

from nlp_ft.data.columns import unique_values
from nlp_ft.data.sources import did_you_mean
from nlp_ft.errors import DataError

LabelValue = str | int


def find_labels(raw: Mapping[str, Dataset], column: str, label_names: Sequence[str] | None) -> dict[LabelValue, str]:
    """Value in the column -> label name, in the order of the ids.

    Raises:
        DataError: a missing label, a type other than string or whole number, fewer than two labels, splits that
            disagree, or a label that train does not have.
    """
    values = {split: _values(rows, column, split) for split, rows in raw.items()}
    _refuse_other_names(raw, column)
    found = sorted(values["train"], key=lambda value: (isinstance(value, str), value))
    feature = raw["train"].features[column]
    if isinstance(feature, ClassLabel):
        labels = _named(dict(enumerate(feature.names)), label_names)
    elif label_names is None:
        labels = {value: str(value) for value in found}
    elif all(isinstance(value, str) for value in found):
        labels = {name: name for name in label_names}
    else:
        labels = dict(enumerate(label_names))
    if len(labels) < 2:
        raise DataError(f"classification needs two labels or more; column {column!r} of train holds only: {found}")
    source = "data.label_names" if label_names is not None else "the train split"
    advice = "add training rows, remove those rows, or list every label in data.label_names"
    for split, present in values.items():
        _refuse_unknown(present, labels, f"{split} has label(s) that {source} does not have", column, advice)
    return labels


def labels_of_model(rows: Dataset, where: str, column: str, label_names: Sequence[str]) -> dict[LabelValue, str]:
    """Value in the column -> label name of a trained model, in the order of the model's ids.

    `where` is what errors call the rows. A value is a name where it reads like one, else an id: a model of the labels
    1 to 5 calls them "1" to "5".

    Raises:
        DataError: a missing label, or one that the model does not know.
    """
    present = _values(rows, column, where)
    feature = rows.features[column]
    if isinstance(feature, ClassLabel):
        labels = _named(dict(enumerate(feature.names)), label_names)
    elif {str(value) for value in present} <= set(label_names):
        values = {str(value): value for value in present}
        labels = {values.get(name, name): name for name in label_names}
    elif any(isinstance(value, str) for value in present):
        labels = {name: name for name in label_names}
    else:
        labels = dict(enumerate(label_names))
    _refuse_unknown(present, labels, f"{where} has label(s) that the model does not have", column, "remove those rows")
    return labels


def _named(names: dict[LabelValue, str], label_names: Sequence[str] | None) -> dict[LabelValue, str]:
    """Ids of a ClassLabel in the order of `label_names`, which may rename them or list them with others."""
    if label_names is None:
        return names
    if not set(names.values()) <= set(label_names):
        return dict(enumerate(label_names))
    ids = {name: value for value, name in names.items()}
    return {ids.get(name, name): name for name in label_names}


def _values(rows: Dataset, column: str, split: str) -> set[LabelValue]:
    feature = rows.features[column]
    is_class_label = isinstance(feature, ClassLabel)
    dtype = feature.dtype if isinstance(feature, Value | ClassLabel) else str(feature)
    if not (dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))):
        raise DataError(f"labels must be strings or whole numbers; column {column!r} of {split} holds {dtype}")
    values = set(unique_values(rows, column))
    missing = {None, "", -1} if is_class_label else {None, ""}
    if values & missing:
        where = [str(i) for i, value in enumerate(rows[column]) if value in missing]
        raise DataError(
            f"{len(where)} row(s) of {split} have no label in column {column!r}: rows {', '.join(where[:5])} (from 0)"
        )
    outside = sorted(value for value in values if is_class_label and value >= len(feature.names))
    if outside:
        raise DataError(
            f"{split} has label id(s) {', '.join(map(str, outside))} in column {column!r}, which has "
            f"{len(feature.names)} names: {', '.join(feature.names)}"
        )
    return values


def _refuse_other_names(raw: Mapping[str, Dataset], column: str) -> None:
    """A ClassLabel whose names stand in another order would be read by id, and wrongly."""
    names = {split: getattr(rows.features[column], "names", None) for split, rows in raw.items()}
    for split, of_split in names.items():
        if of_split and names["train"] and of_split != names["train"]:
            raise DataError(
                f"column {column!r} of {split} has the names {', '.join(of_split)}, but that of train has "
                f"{', '.join(names['train'])}"
            )


def _refuse_unknown(
    present: set[LabelValue], labels: Mapping[LabelValue, str], what: str, column: str, advice: str
) -> None:
    unknown = sorted(map(str, present - labels.keys()))
    if unknown:
        hint = did_you_mean(unknown[0], [str(value) for value in labels])
        raise DataError(f"{what}: {', '.join(unknown[:5])} (column {column!r}){hint}; {advice}")


def label_counts(label_ids: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Label name -> rows, for every label, in the order of the ids; label_ids is (rows,)."""
    counts = np.bincount(label_ids, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))
