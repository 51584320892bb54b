"""Scores of predicted label ids, computed by scikit-learn over all rows of all processes at once.

scikit-learn is imported where a score is computed: it takes seconds, and training can begin without it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compute accuracy, macro_f1, micro_f1, weighted_f1 and matthews of label ids, each array (rows,)."""
    from nlp_ft.tasks.class_scores import ClassificationScores

    # In memory, because `evaluate` would otherwise write and lock files.
    scores: dict[str, float] = ClassificationScores(keep_in_memory=True).compute(
        predictions=predictions, references=references
    )
    return scores


def margin_of_share(share: float, num_rows: int) -> float:
    """Estimate half the width of the 95 % interval of a share of rows, with two more rows of each kind.

    Agresti and Coull 1998, https://doi.org/10.1080/00031305.1998.10480550. Other scores from 0 to 1 are taken for
    shares, which is rough. A share of 0 or 1 has a width, too.
    """
    middle = (min(max(share, 0.0), 1.0) * num_rows + 2) / (num_rows + 4)
    return 1.96 * math.sqrt(middle * (1 - middle) / (num_rows + 4))


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> np.ndarray:
    """Count rows, (labels, labels): a row for each true label, a column for each predicted label."""
    from sklearn import metrics as sk

    matrix: np.ndarray = sk.confusion_matrix(references, predictions, labels=range(num_labels))
    return matrix


def per_class(predictions: np.ndarray, references: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Compute `label`, `precision`, `recall`, `f1` and `support` of each label, in the order of the names."""
    from sklearn import metrics as sk

    columns = sk.precision_recall_fscore_support(
        references, predictions, labels=range(len(label_names)), zero_division=0
    )
    fields = ("precision", "recall", "f1", "support")
    return [
        {"label": name, **{field: float(column[i]) for field, column in zip(fields, columns)}}
        for i, name in enumerate(label_names)
    ]


def worst(rows: list[dict[str, Any]], most: int | None) -> tuple[list[dict[str, Any]], str]:
    """Of more than `most` labels, keep those that occur and do worst, and say so in a line for below the table."""
    if most is None or len(rows) <= most:
        return rows, ""
    kept = sorted((row for row in rows if row["support"]), key=lambda row: float(row["f1"]))[:most]
    return kept, f"\nthe {len(kept)} of {len(rows)} labels with the lowest F1"


def most_confused(
    predictions: np.ndarray, references: np.ndarray, label_names: Sequence[str], most: int = 3
) -> list[tuple[str, str, int]]:
    """List the most frequent mistakes: true label, predicted label, and rows, of which there are at least two."""
    matrix = confusion_matrix(predictions, references, len(label_names))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(label_names)) for place in order]
    return [(label_names[i], label_names[j], int(matrix[i, j])) for i, j in pairs if matrix[i, j] > 1]
