"""Scores of predicted label ids, computed by scikit-learn over all rows of all processes at once.

`ClassificationScores` is an `evaluate.Metric` defined here, because the metrics of the Hub are downloaded at run time.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn import metrics as sk


class ClassificationScores(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """Accuracy; F1 as macro, micro and weighted mean over the labels that occur; Matthews correlation.

    The correlation for more than two labels follows Gorodkin 2004,
    https://doi.org/10.1016/j.compbiolchem.2004.09.006.
    """

    def _info(self) -> evaluate.MetricInfo:
        ids = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python, JMLR 12",
            features=datasets.Features({"predictions": ids, "references": ids}),
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        means = ("macro", "micro", "weighted")
        return {
            "accuracy": float(sk.accuracy_score(references, predictions)),
            **{f"{m}_f1": float(sk.f1_score(references, predictions, average=m, zero_division=0)) for m in means},
            "matthews": float(sk.matthews_corrcoef(references, predictions)),
        }


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compute accuracy, macro_f1, micro_f1, weighted_f1 and matthews of label ids, each array (rows,)."""
    # In memory, because `evaluate` would otherwise write and lock files.
    scores: dict[str, float] = ClassificationScores(keep_in_memory=True).compute(
        predictions=predictions, references=references
    )
    return scores


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, num_labels: int) -> list[list[int]]:
    """Count rows: a row for each true label, a column for each predicted label."""
    matrix: list[list[int]] = sk.confusion_matrix(references, predictions, labels=range(num_labels)).tolist()
    return matrix


def per_class(predictions: np.ndarray, references: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Compute `label`, `precision`, `recall`, `f1` and `support` of each label, in the order of the names."""
    columns = sk.precision_recall_fscore_support(
        references, predictions, labels=range(len(label_names)), zero_division=0
    )
    fields = ("precision", "recall", "f1", "support")
    return [
        {"label": name, **{field: float(column[i]) for field, column in zip(fields, columns)}}
        for i, name in enumerate(label_names)
    ]
