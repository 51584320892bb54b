"""Metrics as `evaluate.Metric` modules of our own: those of the Hub are downloaded at run time, these are not.

Each is computed by scikit-learn from predicted and true label ids, over all rows of all processes at once.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn import metrics as sk

_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class _LabelMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """Base of the metrics over label ids; subclasses say what they compute in their docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python, JMLR 12",
            features=_FEATURES,
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )


class Accuracy(_LabelMetric):
    """Share of the rows whose label is right."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(sk.accuracy_score(references, predictions))}


class F1(_LabelMetric):
    """F1 as macro, micro and weighted mean over the labels that occur in either column."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {
            f"{average}_f1": float(sk.f1_score(references, predictions, average=average, zero_division=0))
            for average in ("macro", "micro", "weighted")
        }


class MatthewsCorrelation(_LabelMetric):
    """Matthews correlation, -1 to 1 (Gorodkin 2004 for several labels)."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"matthews": float(sk.matthews_corrcoef(references, predictions))}


class ConfusionMatrix(_LabelMetric):
    """Rows are true labels, columns predicted ones; `num_labels` fixes its size."""

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], num_labels: int | None = None
    ) -> dict[str, Any]:
        labels = range(num_labels) if num_labels else None
        return {"confusion_matrix": sk.confusion_matrix(references, predictions, labels=labels).tolist()}


class PerClass(_LabelMetric):
    """Precision, recall, F1 and support of each label."""

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], label_names: Sequence[str] = ()
    ) -> dict[str, Any]:
        columns = sk.precision_recall_fscore_support(
            references, predictions, labels=range(len(label_names)), zero_division=0
        )
        fields = ("precision", "recall", "f1", "support")
        return {
            "per_class": [
                {"label": name, **{field: float(column[i]) for field, column in zip(fields, columns)}}
                for i, name in enumerate(label_names)
            ]
        }


METRICS = (Accuracy, F1, MatthewsCorrelation)


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1, micro_f1, weighted_f1 and matthews of label ids, each array (rows,)."""
    scores: dict[str, float] = {}
    for metric in METRICS:
        scores |= compute(metric, predictions, references)
    return scores


def compute(
    metric: type[_LabelMetric], predictions: np.ndarray, references: np.ndarray, **options: Any
) -> dict[str, Any]:
    """One metric in this process's memory; no files, no locks."""
    result: dict[str, Any] = metric(keep_in_memory=True).compute(
        predictions=predictions, references=references, **options
    )
    return result
