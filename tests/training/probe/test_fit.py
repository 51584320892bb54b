"""Linear models on features: the weights are scikit-learn's, and so are the scores of the folds."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from nlp_ft.training.probe.fit import ABSENT, FALLBACK, PENALTIES, fit, validate


def a_sample(rows: int = 60, hidden: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Features of uneven scales, one of which tells three labels apart, with noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    features = generator.normal(size=(rows, hidden)) * [1, 10, 0.1, 1, 3] + 2
    features[:, 1] += 12 * labels
    return features.astype(np.float32), labels


def reference(model: Any, features: np.ndarray, labels: np.ndarray) -> Any:
    return make_pipeline(StandardScaler(), model).fit(features, labels)


def test_the_logits_of_two_labels_differ_by_the_decision_of_logistic_regression() -> None:
    features, labels = a_sample()
    is_one = (labels == 1).astype(np.int64)
    logits = fit(features, is_one, 2, penalty=0.1).logits(features)
    expected = reference(LogisticRegression(C=0.1), features, is_one).decision_function(features)
    assert np.allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)
    assert np.allclose(logits.sum(1), 0, atol=1e-6)


def test_the_logits_of_three_labels_are_those_of_logistic_regression_and_an_absent_label_is_out_of_reach() -> None:
    features, labels = a_sample()
    logits = fit(features, labels + 1, 4, penalty=1.0).logits(features)
    expected = reference(LogisticRegression(C=1.0), features, labels).decision_function(features)
    assert np.allclose(logits[:, 1:], expected, atol=1e-4)
    assert np.allclose(logits[:, 0], ABSENT)


def test_the_logits_of_a_support_vector_machine_are_its_decisions() -> None:
    features, labels = a_sample()
    logits = fit(features, labels, 3, penalty=0.1, classifier="svm").logits(features)
    expected = reference(LinearSVC(C=0.1, random_state=0), features, labels).decision_function(features)
    assert np.allclose(logits, expected, atol=1e-4)


def test_each_label_of_a_set_has_the_decision_of_a_model_of_its_own_and_one_that_all_rows_have_none() -> None:
    features, labels = a_sample()
    sets = np.stack([labels == 0, labels > 0, np.ones_like(labels)], axis=1).astype(np.int8)
    logits = fit(features, sets, 3, penalty=0.1).logits(features)
    for column in (0, 1):
        expected = reference(LogisticRegression(C=0.1), features, sets[:, column]).decision_function(features)
        assert np.allclose(logits[:, column], expected, atol=1e-4)
    assert np.allclose(logits[:, 2], -ABSENT)


def test_numbers_are_those_of_ridge_regression_with_the_inverse_penalty() -> None:
    features, labels = a_sample()
    numbers = np.stack([labels * 2.0, features[:, 0] - labels], axis=1)
    outputs = fit(features, numbers, 2, penalty=0.1).logits(features)
    assert np.allclose(outputs, reference(Ridge(10.0), features, numbers).predict(features), atol=1e-4)


def test_class_weights_are_those_of_scikit_learn() -> None:
    features, labels = a_sample()
    weights = {0: 5.0, 1: 1.0, 2: 0.1}
    logits = fit(features, labels, 3, penalty=0.1, class_weight=weights).logits(features)
    model = reference(LogisticRegression(C=0.1, class_weight=weights), features, labels)
    assert np.allclose(logits, model.decision_function(features), atol=1e-4)


def test_the_score_is_that_of_the_best_penalty_over_the_folds_with_its_standard_error() -> None:
    features, labels = a_sample()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = {
        penalty: cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=penalty)), features, labels, cv=folds
        )
        for penalty in PENALTIES
    }
    best = max(PENALTIES, key=lambda penalty: scores[penalty].mean())
    error = scores[best].std(ddof=1) / np.sqrt(5)
    assert 0.5 < scores[best].mean() < 1
    found = validate(features, labels)
    assert (found.mean, found.standard_error) == pytest.approx((scores[best].mean(), error))
    assert found.penalty == best


def test_another_seed_draws_other_folds() -> None:
    features, labels = a_sample()
    assert validate(features, labels, seed=0).mean != validate(features, labels, seed=1).mean


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 0, 0, 0]])
def test_where_one_label_alone_has_two_rows_nothing_is_chosen(labels: list[int]) -> None:
    found = validate(np.zeros((4, 2), np.float32), np.array(labels))
    assert (np.isnan(found.mean), np.isnan(found.standard_error), found.penalty) == (True, True, FALLBACK)


def test_rows_of_a_single_label_give_a_model_that_always_says_it() -> None:
    linear = fit(np.ones((3, 2), np.float32), np.array([1, 1, 1]), 2)
    assert linear.logits(np.zeros((1, 2))).tolist() == [[ABSENT, 0.0]]
