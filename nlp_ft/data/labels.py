"""Labels that are classes: maps the values of a column to label ids 0..num_labels-1 and to label names."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from datasets import ClassLabel, Dataset, Value

from nlp_ft.data.columns import unique_values
from nlp_ft.errors import DataError, listed
from nlp_ft.suggest import did_you_mean

LabelValue = str | int
MAX_LABELS = 10_000
"""Most labels of a data set; the confusion matrix that the scores need then takes 800 MB."""
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
"""A whole number in its normal form: `007` and `+1` are texts."""
_TRUTH: dict[str, LabelValue] = {"true": True, "false": False}
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def find_labels(raw: Mapping[str, Dataset], column: str, label_names: Sequence[str] | None) -> dict[LabelValue, str]:
    """Find the labels of a data set in its train split, or in the names that the recipe lists.

    Args:
        raw: split name -> rows.
        column: name of the label column.
        label_names: the names from the recipe, in the order of the ids; None takes the values of train, sorted as
            numbers if all are whole numbers, and as texts otherwise.

    Returns:
        Value in the column -> label name, in the order of the label ids.

    Raises:
        DataError: a label is missing, is not a string or a whole number, or has a blank at an end; there are fewer
            than two labels or too many; the splits disagree; or a split has a label that train does not have.
    """
    values = {split: _values(rows, column, split) for split, rows in raw.items()}
    _refuse_other_names(raw, column)
    found = _in_order(values["train"])
    feature = raw["train"].features[column]
    if isinstance(feature, ClassLabel):
        labels = _named(dict(enumerate(feature.names)), label_names)
    elif label_names is None:
        _refuse_fractions(found, column)
        labels = {value: str(value) for value in found}
    else:
        present = set().union(*values.values())
        _refuse_two_readings(present, column, label_names)
        labels = _read_by(present, label_names)
    if len(labels) < 2:
        raise DataError(
            f"data.label: classification needs two labels or more; column {column!r} of train holds only: {found}"
        )
    if len(labels) > MAX_LABELS:
        raise DataError(
            f"data.label: column {column!r} of train has {len(labels):,} different values, more than {MAX_LABELS:,} "
            "labels; does it hold texts or numbers of rows?"
        )
    _refuse_blank_names(labels.values())
    source = "data.label_names" if label_names is not None else "the train split"
    advice = "add training rows, remove those rows, or list every label in data.label_names"
    for split, of_split in values.items():
        _refuse_unknown(of_split, labels, f"{split} has label(s) that {source} does not have", column, advice)
    return labels


def labels_of_model(
    rows: Dataset, where: str, column: str, label_names: Sequence[str], are_given: bool
) -> dict[LabelValue, str]:
    """Match the labels of rows with the label names of a trained model.

    If the recipe lists the names, values are read as in training, see `_read_by`. Otherwise values are taken as names
    if all of them are names of the model, or if the model's names are numbers: a model of the labels 1 to 5 calls them
    "1" to "5". Ids of a ClassLabel stand for its names.

    Args:
        rows: the rows with labels.
        where: name of the rows in error messages.
        column: name of the label column.
        label_names: the model's label names, in the order of the ids.
        are_given: whether the recipe lists the names.

    Returns:
        Value in the column -> label name, in the order of the model's label ids.

    Raises:
        DataError: a label is missing, or the model does not know it.
    """
    present = _values(rows, column, where)
    feature = rows.features[column]
    spelled = {str(value): value for value in present}
    are_numbers = all(map(_WHOLE.fullmatch, label_names))
    has_names = isinstance(feature, ClassLabel) and not (are_numbers and set(feature.names).isdisjoint(label_names))
    if has_names and not are_given:
        spelled = {feature.names[value]: value for value in present}
        labels = {spelled.get(name, name): name for name in label_names}
    elif isinstance(feature, ClassLabel) and are_given:
        labels = _named(dict(enumerate(feature.names)), label_names)
    elif not are_given and (spelled.keys() <= set(label_names) or are_numbers):
        labels = {spelled.get(name, name): name for name in label_names}
    else:
        labels = _read_by(present, label_names)
    what = f"{where} has label(s) that the model does not have"
    names = {value: name for name, value in spelled.items()}
    _refuse_unknown(present, labels, what, column, "remove those rows", names)
    return labels


def alike(names: Sequence[str]) -> list[list[str]]:
    """Group the names that differ only in case, blanks or invisible characters; names without a match are left out."""
    groups: dict[str, list[str]] = {}
    for name in names:
        visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", visible).casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _read_by(present: Collection[LabelValue], label_names: Sequence[str]) -> dict[LabelValue, str]:
    """Map values to the names that a recipe lists: a value is a name, or the id of a name.

    Numbers are ids. The text of a number, which is all that a CSV file has, is an id if the names are numbers
    themselves, or if no value is a name. True and false are ids too, unless the recipe lists these words.
    """
    if all(isinstance(value, bool) for value in present) and any(name.lower() in _TRUTH for name in label_names):
        return {_TRUTH.get(name.lower(), name): name for name in label_names}
    if not any(isinstance(value, str) for value in present):
        return dict(enumerate(label_names))
    are_numbers = all(_WHOLE.fullmatch(str(value)) for value in present)
    if are_numbers and (all(map(_WHOLE.fullmatch, label_names)) or not set(map(str, present)) & set(label_names)):
        return {str(i): name for i, name in enumerate(label_names)}
    return {name: name for name in label_names}


def _refuse_two_readings(present: set[LabelValue], column: str, label_names: Sequence[str]) -> None:
    """Refuse a number, or its text, that is one name and the id of another: `1`, where the names are 1, 2 and 3."""
    spelled = set(map(str, present))
    ids = {str(i): name for i, name in enumerate(label_names)}
    both = [value for value in _in_order(spelled) if ids.get(str(value), value) != value]
    if both and spelled <= set(label_names) and all(map(_WHOLE.fullmatch, label_names)):
        raise DataError(
            f"data.label_names: {both[0]} (column {column!r}) can be the label {both[0]} or the id of "
            f"{ids[str(both[0])]}; leave label_names out to take the labels as they are, in the order of numbers"
        )


def _in_order(values: Collection[LabelValue]) -> list[LabelValue]:
    if all(_WHOLE.fullmatch(str(value)) for value in values):
        return sorted(values, key=int)
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _refuse_fractions(found: Sequence[LabelValue], column: str) -> None:
    texts = [value for value in found if isinstance(value, str)]
    fractions = [text for text in texts if NUMBER.fullmatch(text) and not text.lstrip("+-").isdigit()]
    if fractions and all(map(NUMBER.fullmatch, texts)):
        raise DataError(
            f"labels must be strings or whole numbers; column {column!r} of train holds fractions such as "
            f"{fractions[0]}; if they are names of classes, list them in data.label_names"
        )


def _refuse_blank_names(names: Collection[str]) -> None:
    for name in names:
        if not name or name != name.strip():
            raise DataError(f"data.label_names: {name!r} is blank, or begins or ends with a blank; remove the blank")


def _named(names: dict[LabelValue, str], label_names: Sequence[str] | None) -> dict[LabelValue, str]:
    """Map the ids of a ClassLabel to `label_names`, which may rename the labels, reorder them, or add others.

    Raises:
        DataError: a label would get another name, though its own is listed too.
    """
    if label_names is None:
        return names
    if not set(names.values()) <= set(label_names):
        for name, new in zip(names.values(), label_names):
            if name != new and name in label_names:
                raise DataError(
                    f"data.label_names would call the label {name!r} {new!r}, though it lists {name!r} too; name all "
                    f"labels of the column, {listed(names.values())}, or put a new name in the place of each"
                )
        return dict(enumerate(label_names))
    ids = {name: value for value, name in names.items()}
    return {ids.get(name, name): name for name in label_names}


def _values(rows: Dataset, column: str, split: str) -> set[LabelValue]:
    feature = rows.features[column]
    is_class_label = isinstance(feature, ClassLabel)
    dtype = feature.dtype if isinstance(feature, Value | ClassLabel) else str(feature)
    if not (dtype in {"string", "large_string", "bool"} or dtype.startswith(("int", "uint"))):
        found = unique_values(rows, column) if dtype.startswith("float") else [0.5]
        are_whole = all(value is None or value.is_integer() for value in found)
        advice = f"; write 1.0 as 1, as pandas does with .astype({{{column!r}: int}})" if are_whole else ""
        raise DataError(f"labels must be strings or whole numbers; column {column!r} of {split} holds {dtype}{advice}")
    values = set(unique_values(rows, column))
    missing = {None, "", -1} if is_class_label else {None, ""}
    if values & missing:
        where = [str(i) for i, value in enumerate(rows[column]) if value in missing]
        raise DataError(
            f"{len(where)} row(s) of {split} have no label in column {column!r}: rows {listed(where, 5)} (from 0)"
        )
    blank = sorted(value for value in values if isinstance(value, str) and value != value.strip())
    if blank:
        raise DataError(
            f"{split} has the label {blank[0]!r} in column {column!r}: a blank at its beginning or end makes it "
            "a different label; remove the blank"
        )
    outside = sorted(value for value in values if is_class_label and value >= len(feature.names))
    if outside:
        raise DataError(
            f"{split} has label id(s) {listed(map(str, outside))} in column {column!r}, which has "
            f"{len(feature.names)} names: {listed(feature.names)}"
        )
    return values


def _refuse_other_names(raw: Mapping[str, Dataset], column: str) -> None:
    """Refuse splits whose ClassLabel names differ in order, because one id would then mean different labels."""
    names = {split: getattr(rows.features[column], "names", None) for split, rows in raw.items()}
    for split, of_split in names.items():
        if of_split and names["train"] and of_split != names["train"]:
            raise DataError(
                f"column {column!r} of {split} has the names {listed(of_split)}, but that of train has "
                f"{listed(names['train'])}"
            )


def _refuse_unknown(
    present: set[LabelValue],
    labels: Mapping[LabelValue, str],
    what: str,
    column: str,
    advice: str,
    names: Mapping[LabelValue, str] | None = None,
) -> None:
    unknown = sorted((names or {}).get(value, str(value)) for value in present - labels.keys())
    if unknown:
        hint = did_you_mean(unknown[0], [str(value) for value in labels])
        if unknown[0] in {str(value) for value in labels}:
            hint = "; one file holds numbers and another holds texts (a CSV has only texts): write both in one format"
        raise DataError(f"{what}: {listed(unknown, 5)} (column {column!r}){hint}; {advice}")


def label_counts(label_ids: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Count the rows of each label.

    Args:
        label_ids: label id of each row, (rows,); or 1 for each label that a row has and 0 for the others, (rows,
            labels).
        names: label names in the order of the ids.

    Returns:
        Label name -> number of rows, for every label, in the order of the ids.
    """
    counts = np.bincount(label_ids, minlength=len(names)) if label_ids.ndim == 1 else label_ids.sum(0, dtype=np.int64)
    return dict(zip(names, counts.tolist(), strict=True))
