"""Scores of predicted label sets, and the thresholds that make sets of probabilities."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn import metrics as sk

Thresholds = Literal["tuned", "tuned_per_label"]
NO_THRESHOLD = 0.5
"""Threshold of a label that no row has which thresholds are tuned on."""
GRID = np.arange(1, 100) / 100
"""Thresholds that are tried as one for all labels."""


def score(probabilities: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compute every score of label sets.

    - `macro_f1`, `micro_f1`, `weighted_f1`: F1 as mean over the labels, over all decisions, and over the labels by
      their rows; a label that nobody has and that is never predicted counts 0, as in scikit-learn.
    - `samples_f1`: mean of the F1 of each row; a row without a label for which none is predicted counts 1.
    - `average_precision`: mean over the labels that occur; it needs no thresholds.
    - `subset_accuracy`: share of rows whose set is right as a whole.
    - `hamming_loss`: share of wrong decisions among all rows and labels.
    - `matthews`: mean over the labels of Matthews correlation; 0 for a label that all rows or none have, or get.

    Args:
        probabilities: of each label, (rows, labels).
        predicted: 1 for each label that is predicted, else 0, (rows, labels).
        references: 1 for each label that the row has, else 0, (rows, labels).
    """
    means = ("macro", "micro", "weighted")
    return {
        **{f"{m}_f1": float(sk.f1_score(references, predicted, average=m, zero_division=0)) for m in means},
        "samples_f1": float(sk.f1_score(references, predicted, average="samples", zero_division=1)),
        "average_precision": _average_precision(probabilities, references),
        "subset_accuracy": float(sk.accuracy_score(references, predicted)),
        "hamming_loss": float(sk.hamming_loss(references, predicted)),
        "matthews": _matthews(predicted, references),
    }


def per_label(
    predicted: np.ndarray, references: np.ndarray, label_names: Sequence[str], thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Compute `label`, `precision`, `recall`, `f1`, `support` and `threshold` of each label, in the order of the names.

    Args:
        predicted: 1 for each label that is predicted, else 0, (rows, labels).
        references: 1 for each label that the row has, else 0, (rows, labels).
        label_names: the names in the order of the ids.
        thresholds: the threshold of each label.
    """
    columns = sk.precision_recall_fscore_support(references, predicted, average=None, zero_division=0)
    fields = ("precision", "recall", "f1", "support", "threshold")
    rows = zip(*columns, thresholds, strict=True)
    return [{"label": name, **dict(zip(fields, map(float, row)))} for name, row in zip(label_names, rows, strict=True)]


def tuned(setting: Thresholds, probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Find the thresholds that give the best F1.

    `tuned_per_label`: for each label the threshold with its highest F1, in the middle between two probabilities; of
    several, the highest. `tuned`: of 0.01 to 0.99 the one with the highest micro F1; of several, the middle one. It is
    micro F1 for every metric: macro F1 depends on a few rows of rare labels, and the threshold with the best one on
    validation was no better in macro F1 on other rows, and worse in micro F1 (docs/defaults.md).

    Args:
        setting: `training.threshold` of the recipe.
        probabilities: of each label, (rows, labels).
        references: 1 for each label that the row has, else 0, (rows, labels).

    Returns:
        The threshold of each label, (labels,).
    """
    if setting == "tuned_per_label":
        return np.array([_best_threshold(p, r) for p, r in zip(probabilities.T, references.T)])
    hits, wrong = (_counts_above(probabilities[references == value]) for value in (1, 0))
    f1 = 2 * hits / np.maximum(hits + wrong + references.sum(), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = GRID[best[len(best) // 2]] if f1.max() > 0 else NO_THRESHOLD
    return np.full(probabilities.shape[1], chosen)


def _best_threshold(probabilities: np.ndarray, references: np.ndarray) -> float:
    """Find the threshold of one label with the highest F1; both arrays are (rows,)."""
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities = probabilities[order].astype(np.float64)
    hits, support = references[order].cumsum(), references.sum()
    if not support:
        return NO_THRESHOLD
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + support)
    # Rows of one probability are predicted together.
    below = np.append(sorted_probabilities[1:], 0.0)
    f1[sorted_probabilities == below] = -1
    best = int(f1.argmax())
    if f1[best] <= 0:
        return NO_THRESHOLD
    return float((sorted_probabilities[best] + below[best]) / 2)


def _counts_above(probabilities: np.ndarray) -> np.ndarray:
    """Count for each threshold of `GRID` the probabilities at or above it, (thresholds,)."""
    values = np.sort(probabilities.astype(np.float64))
    return len(values) - np.searchsorted(values, GRID, side="left")


def _average_precision(probabilities: np.ndarray, references: np.ndarray) -> float:
    occurring = np.flatnonzero(references.any(0))
    if not len(occurring):
        return math.nan
    return float(np.mean([sk.average_precision_score(references[:, i], probabilities[:, i]) for i in occurring]))


def _matthews(predicted: np.ndarray, references: np.ndarray) -> float:
    rows, hits = len(references), (predicted & references).sum(0)
    given, true = predicted.sum(0), references.sum(0)
    # (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)), in counts of rows.
    spread = given.astype(np.float64) * (rows - given) * true * (rows - true)
    covariance = hits.astype(np.float64) * rows - given.astype(np.float64) * true
    return float(np.mean(np.divide(covariance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 0)))


def most_frequent_set(references: np.ndarray) -> np.ndarray:
    """Find the most frequent row of 0 and 1 among rows, (rows, labels), as (labels,); of several, the first sorted."""
    rows, counts = np.unique(references, axis=0, return_counts=True)
    most: np.ndarray = rows[counts.argmax()]
    return most
