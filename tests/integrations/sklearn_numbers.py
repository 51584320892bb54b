"""The estimators of scikit-learn behind an input of numbers, which the checks of scikit-learn feed.

Each row of numbers is written as a text of words, so that everything behind the input is what users get.
"""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from nlp_ft.integrations.sklearn import TextClassifier, TextRegressor
from tests.tiny import WORDS


def as_texts(table: np.ndarray) -> list[str]:
    """A word for each number, by its whole part."""
    return [" ".join(WORDS[int(np.clip(value, -1e6, 1e6)) % len(WORDS)] for value in row) for row in table]


class _Numbers:
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
        X = validate_data(self, X)  # noqa: N806
        super().fit(as_texts(X), y, sample_weight)  # type: ignore[misc]
        self.n_features_in_ = X.shape[1]
        return self

    def _inputs(self, X: Any) -> list[str]:  # noqa: N803
        check_is_fitted(self)
        return as_texts(validate_data(self, X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        for of_kind in (tags.classifier_tags, tags.regressor_tags):
            if of_kind is not None:
                of_kind.poor_score = True  # two steps of a tiny network
        return tags


class NumberClassifier(_Numbers, TextClassifier):
    """A `TextClassifier` of rows of numbers."""


class NumberRegressor(_Numbers, TextRegressor):
    """A `TextRegressor` of rows of numbers."""
