"""Linear models on features: cross-validation, which chooses the penalty, and the fit on all rows.

Labels decide on the model: ids, (rows,), give logistic regression or a linear SVM; 0 and 1 for each label, (rows,
labels), one such model a label; floating-point numbers a ridge regression. Features are scaled to mean 0 and deviation
1 in train; the scale is a part of the weights that come out.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_ft.recipe.probe import ProbeClassifier

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty, of which cross-validation on train chooses one."""
FALLBACK = 0.01
"""The inverse strength where train has too few rows to choose."""
FOLDS = 5
MOST_ROWS = 2_000
"""Most rows on which a penalty or a layer is chosen, drawn from train; the fit has all rows."""
ABSENT = -100.0
"""Logit of a label that no row of train has."""
Score = Callable[[np.ndarray, np.ndarray], float]
"""From outputs, (rows, outputs), and labels, (rows, ...), to a score that is better when higher."""


@dataclass(frozen=True)
class Linear:
    """A linear model: `features @ weight.T + bias`.

    Args:
        weight: (outputs, hidden).
        bias: (outputs,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute the outputs of features, (rows, hidden): (rows, outputs)."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Validated:
    """What cross-validation says of features: NaN where train has too few rows for two folds.

    Args:
        mean: mean score over the folds, with the best penalty.
        standard_error: its standard error: deviation over the folds / root of their number.
        penalty: the inverse strength of the best penalty.
    """

    mean: float
    standard_error: float
    penalty: float


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of rows whose highest output is that of their label."""
    return float((logits.argmax(-1) == labels).mean())


def validate(
    features: np.ndarray,
    labels: np.ndarray,
    score: Score = accuracy,
    classifier: ProbeClassifier = "logistic",
    folds: int = FOLDS,
    class_weight: Any = None,
    seed: int = 0,
) -> Validated:
    """Score a linear model on features by cross-validation, with the penalty that is best in it.

    Args:
        features: (rows, hidden).
        labels: see the top of this file.
        score: judges the outputs on a fold; accuracy is for ids.
        classifier: the model of labels.
        folds: most folds; there are fewer where the labels have fewer rows.
        class_weight: weights of the labels, as scikit-learn takes them.
        seed: seed of the folds.
    """
    from sklearn.model_selection import GridSearchCV

    if len(labels) > MOST_ROWS:
        rows = np.random.default_rng(seed).choice(len(labels), MOST_ROWS, replace=False)
        features, labels = features[rows], labels[rows]
    splits = _folds(labels, folds, seed)
    if splits is None:
        return Validated(np.nan, np.nan, FALLBACK)
    model, key = _model(labels, classifier, class_weight)
    values = [1 / value if key.endswith("alpha") else value for value in PENALTIES]
    num_outputs = int(labels.max()) + 1 if _are_ids(labels) else labels.reshape(len(labels), -1).shape[1]
    search = GridSearchCV(
        model,
        {key: values},
        scoring=lambda fitted, x, y: score(_linear(fitted, num_outputs, x.shape[1]).logits(x), y),
        cv=splits,
        refit=False,
    )
    with _quiet():
        search.fit(features, labels)
    means = np.nan_to_num(search.cv_results_["mean_test_score"], nan=-np.inf)
    best = int(means.argmax())
    scores = [search.cv_results_[f"split{i}_test_score"][best] for i in range(search.n_splits_)]
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return Validated(float(np.mean(scores)), error, PENALTIES[best])


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_outputs: int,
    penalty: float = FALLBACK,
    classifier: ProbeClassifier = "logistic",
    class_weight: Any = None,
) -> Linear:
    """Fit a linear model on all rows.

    Args:
        features: (rows, hidden).
        labels: see the top of this file.
        num_outputs: the outputs of the model: labels or numbers.
        penalty: inverse strength of the penalty.
        classifier: the model of labels.
        class_weight: weights of the labels, as scikit-learn takes them.
    """
    if _are_ids(labels) and len(np.unique(labels)) == 1:
        bias = np.full(num_outputs, ABSENT)
        bias[labels[0]] = 0.0
        return Linear(np.zeros((num_outputs, features.shape[1])), bias)
    model, key = _model(labels, classifier, class_weight)
    model.set_params(**{key: 1 / penalty if key.endswith("alpha") else penalty})
    with _quiet():
        model.fit(features, labels)
    return _linear(model, num_outputs, features.shape[1])


def _linear(fitted: Any, num_outputs: int, hidden: int) -> Linear:
    """Fold the scaler of a fitted pipeline into the weights of its model."""
    scaler, model = fitted[0], fitted[-1]
    weight, bias = _weights(model, num_outputs, hidden)
    weight = weight / scaler.scale_
    return Linear(weight, bias - weight @ scaler.mean_)


def _weights(linear: Any, num_outputs: int, hidden: int) -> tuple[np.ndarray, np.ndarray]:
    """Read weights, (outputs, hidden), and biases, (outputs,), out of a fitted model of scikit-learn."""
    if hasattr(linear, "estimators_"):
        # A label that all rows have, or none, has no model.
        parts = [
            (one.coef_[0], one.intercept_[0])
            if hasattr(one, "coef_")
            else (np.zeros(hidden), -ABSENT if one.predict(np.zeros((1, hidden)))[0] else ABSENT)
            for one in linear.estimators_
        ]
        return np.array([weight for weight, _ in parts]), np.array([bias for _, bias in parts])
    found, offsets = linear.coef_.reshape(-1, hidden), np.reshape(linear.intercept_, -1)
    if not hasattr(linear, "classes_"):
        return found, offsets
    if len(linear.classes_) == 2:
        # The difference of the two logits is the decision.
        found, offsets = (np.concatenate([-values / 2, values / 2]) for values in (found, offsets))
    weight, bias = np.zeros((num_outputs, hidden)), np.full(num_outputs, ABSENT)
    weight[linear.classes_], bias[linear.classes_] = found, offsets
    return weight, bias


def _model(labels: np.ndarray, classifier: ProbeClassifier, class_weight: Any) -> tuple[Any, str]:
    """Make the scaler with the model that the labels ask for, and name the parameter of its penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if np.issubdtype(labels.dtype, np.floating):
        return make_pipeline(StandardScaler(), Ridge()), "ridge__alpha"
    of_labels: Any = (
        LogisticRegression(max_iter=300, class_weight=class_weight)
        if classifier == "logistic"
        else LinearSVC(class_weight=class_weight, random_state=0)
    )
    if _are_ids(labels):
        return make_pipeline(StandardScaler(), of_labels), f"{type(of_labels).__name__.lower()}__C"
    return make_pipeline(StandardScaler(), OneVsRestClassifier(of_labels)), "onevsrestclassifier__estimator__C"


def _folds(labels: np.ndarray, folds: int, seed: int) -> Any:
    """Make the folds; None where some fold would leave only one label, or fewer than two rows, to learn from."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if not _are_ids(labels):
        number = min(folds, len(labels) // 2)
        return KFold(number, shuffle=True, random_state=seed) if number > 1 else None
    counts = np.sort(np.unique(labels, return_counts=True)[1])
    number = min(folds, int(counts[-1]))
    if len(counts) < 2 or counts[-2] < 2:
        return None
    return StratifiedKFold(number, shuffle=True, random_state=seed)


def _are_ids(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep scikit-learn from warning of few rows of a label, and of a model that is not at its optimum yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
