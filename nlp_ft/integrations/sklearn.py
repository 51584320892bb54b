"""Estimators of scikit-learn: `fit` on texts, and `predict` with the model that comes out; see `nlp_ft.fit`.

They take texts, or lists of words, not arrays of numbers, and go wherever scikit-learn passes X on as it is:
GridSearchCV, cross_val_score, Pipeline, VotingClassifier, CalibratedClassifierCV.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from nlp_ft.api.fit import fit
from nlp_ft.api.run import Run
from nlp_ft.errors import DataError
from nlp_ft.integrations.sklearn_inputs import NO_ROW_WEIGHTS, labels_of, lists_of, texts_of
from nlp_ft.tasks.tag_metrics import score_tags

__all__ = ["TextClassifier", "TextRegressor", "TokenClassifier"]
PAIR = ("text", "text_2")
"""Names of the columns of a pair of texts in the recipe."""
EXPECTED_FAILURES = {
    "check_sample_weights_not_overwritten": NO_ROW_WEIGHTS,
    "check_sample_weight_equivalence_on_dense_data": NO_ROW_WEIGHTS,
}
"""Check of scikit-learn's `check_estimator` that fails -> the reason; all others pass behind an input of numbers."""


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: settings, the run, pickling.

    Args:
        model: the pretrained encoder: a Hub id, a folder, or `package:NAME/PATH`.
        strategy: which layers train, and when.
        lr: base learning rate; None derives it.
        head_lr: learning rate of the head; None derives it.
        layer_decay: factor on the rate from each block to the next one below; None takes that of the strategy.
        duration: length of the run, such as `3ep` or `200st`; None derives it.
        per_device_batch_size: texts in a batch; None derives it.
        max_length: most tokens of a text.
        validation: share of the rows, such as `10%`, that chooses the best weights; None trains on all rows and keeps
            the last weights, because scikit-learn splits by itself.
        settings: further keywords of `nlp_ft.fit`, such as `{"pooling": "mean"}`.
        output_dir: the run folder, which a later `fit` replaces; None takes a temporary one, which goes with the
            estimator. Leave it None where several copies are fitted, as in a grid search.
        random_state: seed of the run; None is 0, so that a fit is repeated to the bit.
        level: how much is shown: `quiet`, `bar`, `normal` or `verbose`.
    """

    task: str

    def __init__(
        self,
        model: Any = None,
        *,
        strategy: str = "llrd",
        lr: float | None = None,
        head_lr: float | None = None,
        layer_decay: float | None = None,
        duration: str | None = None,
        per_device_batch_size: int | None = None,
        max_length: int = 128,
        validation: str | None = None,
        settings: Mapping[str, Any] | None = None,
        output_dir: str | Path | None = None,
        random_state: Any = None,
        level: Any = "quiet",
    ) -> None:
        self.model = model
        self.strategy = strategy
        self.lr = lr
        self.head_lr = head_lr
        self.layer_decay = layer_decay
        self.duration = duration
        self.per_device_batch_size = per_device_batch_size
        self.max_length = max_length
        self.validation = validation
        self.settings = settings
        self.output_dir = output_dir
        self.random_state = random_state
        self.level = level

    def _fit(
        self, texts: Sequence[Any], labels: Sequence[Any], num_columns: int, text: str | list[str], **more: Any
    ) -> Self:
        """Train on checked inputs and checked labels; `text` names the column(s) of the inputs in the recipe."""
        named = ("strategy", "lr", "head_lr", "layer_decay", "duration", "per_device_batch_size", "max_length")
        keywords = {name: getattr(self, name) for name in named if getattr(self, name) is not None}
        seed = 0 if self.random_state is None else int(check_random_state(self.random_state).randint(2**31))
        seed = int(self.random_state) if isinstance(self.random_state, int | np.integer) else seed
        temporary = tempfile.TemporaryDirectory(prefix="nlp_ft_") if self.output_dir is None else None
        run = fit(
            (texts, labels),
            text=text,
            model=self.model,
            task=self.task,
            validation=self.validation or False,
            output_dir=Path(temporary.name) / "run" if temporary else self.output_dir,
            overwrite=True,
            level=self.level,
            **{"seed": seed, "baselines": False, **more, **keywords, **(self.settings or {})},
        )
        self.n_features_in_ = num_columns
        self._keep(run, temporary)
        return self

    def _keep(self, run: Run, temporary: "tempfile.TemporaryDirectory[str] | None") -> None:
        self.run_ = run
        self._temporary = temporary

    def __getstate__(self) -> dict[str, Any]:
        """The settings, and the files of the run folder, so that the pickle needs nothing beside it."""
        state = dict(super().__getstate__())
        run = state.pop("run_", None)
        state.pop("_temporary", None)
        if run is not None:
            files = [file for file in sorted(run.folder.rglob("*")) if file.is_file()]
            state["_files"] = {str(file.relative_to(run.folder)): file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the files of the run folder into a new temporary one."""
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            temporary = tempfile.TemporaryDirectory(prefix="nlp_ft_")
            for name, content in files.items():
                file = Path(temporary.name) / "run" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._keep(Run(Path(temporary.name) / "run"), temporary)


class _TextEstimator(_Estimator):
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
    """A classifier of texts or pairs of texts: a fine-tuned encoder. See `_Estimator` for the settings.

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
            raise DataError(f"y has only one class, {self.classes_[0]!r}; a classifier needs two classes or more")
        names = [str(label) for label in self.classes_]
        are_names = len(set(names)) == len(names) and all(name and name == name.strip() for name in names)
        more = {"label_names": names} if are_names else {}
        return self._fit(texts, ids.tolist(), num_columns, _columns(num_columns), **more)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict the label of each text, (rows,)."""
        best = self.predict_proba(X).argmax(1)
        found: np.ndarray = self.classes_[best]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Compute the probability of each label, (rows, labels), in the order of `classes_`."""
        inputs = self._inputs(X)
        return self.run_.predict_proba(inputs).astype(np.float64)


class TextRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]
    """Learns a number for each text or pair of texts. See `_Estimator` for the settings.

    Attributes:
        run_: the `nlp_ft.Run` of the last fit.
        n_features_in_: 1 for texts, 2 for pairs of texts.
    """

    task = "text_regression"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fine-tune on texts with numbers; see `TextClassifier.fit`. Raises: NlpFtError."""
        texts, num_columns = texts_of(X)
        numbers = labels_of(y, texts, sample_weight).astype(np.float64)
        return self._fit(texts, numbers.tolist(), num_columns, _columns(num_columns))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict the number of each text, (rows,)."""
        inputs = self._inputs(X)
        return np.array(self.run_.predict(inputs), dtype=np.float64)


class TokenClassifier(_Estimator):
    """A tagger of words, such as a finder of names: a fine-tuned encoder. See `_Estimator` for the settings.

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
        self._fit(words, tags, 1, "tokens")
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


def _columns(num_columns: int) -> str | list[str]:
    return PAIR[0] if num_columns == 1 else list(PAIR)
