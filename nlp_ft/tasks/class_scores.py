"""The scores of label ids as an `evaluate.Metric`, defined here because those of the Hub are downloaded at run time.

It has a file of its own, because importing evaluate and scikit-learn takes seconds, which come at the first evaluation.
"""

from collections.abc import Sequence

import datasets
import evaluate
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
        _, _, f1s, rows = sk.precision_recall_fscore_support(references, predictions, zero_division=0)
        accuracy = float(sk.accuracy_score(references, predictions))
        return {
            "accuracy": accuracy,
            "macro_f1": float(f1s.mean()),
            # Where each row has one label, they are equal.
            "micro_f1": accuracy,
            "weighted_f1": float((rows / rows.sum()) @ f1s),
            # Of one label, where scikit-learn warns, the correlation is 0.
            "matthews": float(sk.matthews_corrcoef(references, predictions)) if len(rows) > 1 else 0.0,
        }
