"""Estimators of scikit-learn: `fit` on texts, and `predict` with the model that comes out; see `nlp_ft.fit`.

They take texts, or lists of words, not arrays of numbers, and go wherever scikit-learn passes X on as it is:
GridSearchCV, cross_val_score, Pipeline, VotingClassifier, CalibratedClassifierCV.
"""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from nlp_ft.errors import DataError
from nlp_ft.integrations.sklearn_inputs import NO_ROW_WEIGHTS, choices_of, labels_of, lists_of, texts_of
from nlp_ft.integrations.sklearn_run import RunEstimator
from nlp_ft.tasks.tag_metrics import score_tags

__all__ = ["MultipleChoiceClassifier", "TextClassifier", "TextRegressor", "TokenClassifier"]
PAIR = ("text", "text_2")
"""Names of the columns of a pair of texts in the recipe."""
EXPECTED_FAILURES = {
    "check_sample_weights_not_overwritten": NO_ROW_WEIGHTS,
    "check_sample_weight_equivalence_on_dense_data": NO_ROW_WEIGHTS,
}
"""Check of scikit-learn's `check_estimator` that fails -> the reason; all others pass behind an input of numbers."""


class _TextEstimator(RunEstimator):
    """What the estimators of texts, or of pairs of texts, share."""

    def _inputs(self, X: Any) -> list[Any]:  # noqa: N803  # scikit-learn's name
        """Check new texts against those of `fit`. Raises: DataError, or NotFittedError."""
        check_is_fitted(self, "run_")
        texts, num_columns = texts_of(X)
        if num_columns != self.n_features_in_:
            raise DataError(
                f"X has {num_columns} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input: a text, or the two texts of a pair"
            )
        return texts

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that X holds texts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


class TextClassifier(ClassifierMixin, _TextEstimator):  # type: ignore[misc]
    """A classifier of texts or pairs of texts: a fine-tuned encoder. See `RunEstimator` for the settings.

    Attributes:
        classes_: the labels of y, sorted, (labels,).
        run_: the `nlp_ft.Run` of the last fit.
        n_features_in_: 1 for texts, 2 for pairs of texts.
    """

    task = "text_classification"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fine-tune on texts with labels.

        Args:
            X: texts, (rows,) or (rows, 1); or pairs of texts, (rows, 2).
            y: labels, (rows,): texts, numbers or truth values.
            sample_weight: None, or equal weights. Weights that differ are refused: the loss weights labels, not rows.

        Raises:
            NlpFtError: what `nlp_ft.fit` refuses.
        """
        texts, num_columns = texts_of(X)
        labels = labels_of(y, texts, sample_weight)
        check_classification_targets(labels)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"y has only one class, {self.classes_.tolist()[0]!r}; a classifier needs two classes or more"
            )
        names, numbers = [str(label) for label in self.classes_], [str(i) for i in range(len(self.classes_))]
        # The texts 0, 1, 10, 2, ... could be names or ids, so the run reads them itself, and sorts them as numbers.
        are_texts_of_ids = names != numbers and set(names) == set(numbers)
        self._order = [int(name) for name in names] if are_texts_of_ids else list(range(len(names)))
        if are_texts_of_ids:
            return self._fit((texts, [names[i] for i in ids]), num_columns, text=_columns(num_columns))
        are_names = len(set(names)) == len(names) and all(name and name == name.strip() for name in names)
        more = {"label_names": names} if are_names else {}
        return self._fit((texts, ids.tolist()), num_columns, text=_columns(num_columns), **more)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict the label of each text, (rows,)."""
        best = self.predict_proba(X).argmax(1)
        found: np.ndarray = self.classes_[best]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Compute the probability of each label, (rows, labels), in the order of `classes_`."""
        inputs = self._inputs(X)
        return self.run_.predict_proba(inputs)[:, self._order].astype(np.float64)


class TextRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]
    """Learns a number for each text or pair of texts. See `RunEstimator` for the settings.

    Attributes:
        run_: the `nlp_ft.Run` of the last fit.
        n_features_in_: 1 for texts, 2 for pairs of texts.
    """

    task = "text_regression"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fine-tune on texts with numbers; see `TextClassifier.fit`. Raises: NlpFtError."""
        texts, num_columns = texts_of(X)
        numbers = labels_of(y, texts, sample_weight).astype(np.float64)
        return self._fit((texts, numbers.tolist()), num_columns, text=_columns(num_columns))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict the number of each text, (rows,)."""
        inputs = self._inputs(X)
        return np.array(self.run_.predict(inputs), dtype=np.float64)


class TokenClassifier(RunEstimator):
    """A tagger of words, such as a finder of names: a fine-tuned encoder. See `RunEstimator` for the settings.

    Attributes:
        classes_: the tags of y, in the order of their ids: `O` first, then by type.
        run_: the `nlp_ft.Run` of the last fit.
        n_features_in_: 1, the list of words.
    """

    task = "token_classification"

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fine-tune on words with tags.

        Args:
            X: the words of each row: a list of lists of texts, (rows, words).
            y: the tags of each row, in the same form: `B-TYPE`, `I-TYPE` and `O`, or plain tags.

        Raises:
            NlpFtError: what `nlp_ft.fit` refuses.
        """
        words = lists_of(X, "X")
        if y is None:
            raise DataError("this estimator requires y to be passed, but the target y is None")
        tags = lists_of(y, "y")
        check_consistent_length(words, tags)
        self._fit((words, tags), 1, text="tokens")
        self.classes_ = np.array(self.run_.labels, dtype=object)
        return self

    def predict(self, X: Any) -> list[list[str]]:  # noqa: N803
        """Predict the tag of each word; the rows are as long as those of X."""
        check_is_fitted(self, "run_")
        words = lists_of(X, "X")
        return [tagged.tags(self.run_.labels) for tagged in self.run_.trained.activated_all(words)]

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Compute the F1 of whole spans, strictly: type, beginning and end must be right; of plain tags, of words."""
        predicted, tags = self.predict(X), lists_of(y, "y")
        check_consistent_length(predicted, tags)
        for number, (given, true) in enumerate(zip(predicted, tags, strict=True)):
            if len(given) != len(true):
                raise DataError(f"row {number} (from 0) has {len(given)} words in X and {len(true)} tags in y")
        return score_tags(predicted, tags, self.run_.trained.model.config.tag_scheme)["span_f1"]

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that X holds lists, and that y is needed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


class MultipleChoiceClassifier(ClassifierMixin, RunEstimator):  # type: ignore[misc]
    """Chooses the right candidate for a prompt: a fine-tuned encoder. See `RunEstimator` for the settings.

    Attributes:
        classes_: the indices of the candidates, from 0, as many as the longest row of `fit` has.
        run_: the `nlp_ft.Run` of the last fit.
        n_features_in_: 2, the prompt and its candidates.
    """

    task = "multiple_choice"

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fine-tune on prompts with candidates, and the right ones.

        Args:
            X: a list of (prompt, [candidate, candidate, ...]); or columns of texts, (rows, 1 + candidates), the prompt
                first.
            y: the index of the right candidate of each row, from 0, (rows,).

        Raises:
            NlpFtError: what `nlp_ft.fit` refuses.
        """
        prompts, candidates = choices_of(X)
        labels = labels_of(y, prompts, None)
        if labels.dtype.kind not in "iu":
            raise DataError(f"y must hold the index of the right candidate of each row, from 0; got {labels.dtype}")
        self._fit({"text": prompts, "candidates": candidates, "label": labels.tolist()}, 2)
        self.classes_ = np.arange(max(map(len, candidates)))
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict the index of the right candidate of each row, (rows,)."""
        return np.array([choice.index for choice in self._chosen(X)])

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Compute the probability of each candidate, (rows, most candidates of a row); 0 where a row has fewer."""
        choices = self._chosen(X)
        probabilities = np.zeros((len(choices), max([len(self.classes_), *(len(one.scores) for one in choices)])))
        for row, choice in enumerate(choices):
            probabilities[row, : len(choice.scores)] = choice.scores
        return probabilities

    def _chosen(self, X: Any) -> list[Any]:  # noqa: N803
        check_is_fitted(self, "run_")
        found: list[Any] = self.run_.predict(list(zip(*choices_of(X), strict=True)))
        return found

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that X holds no array of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _columns(num_columns: int) -> str | list[str]:
    return PAIR[0] if num_columns == 1 else list(PAIR)
