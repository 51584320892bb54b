"""Checks what scikit-learn passes to the estimators: texts, pairs, lists of words, choices, labels and weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d

from nlp_ft.errors import DataError

NO_ROW_WEIGHTS = "the loss weights classes, not rows, so weights that differ are refused rather than ignored"


def lists_of(values: Any, name: str) -> list[list[str]]:
    """Read X or y as lists of texts. Raises: DataError: it holds something else."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise DataError(f"{name} must be a list of lists of texts; got {type(values).__name__}")
    if len(values) == 0:
        raise DataError(f"{name} has 0 sample(s); at least one list of words is needed")
    for number, row in enumerate(values):
        if isinstance(row, str) or not hasattr(row, "__len__") or not all(isinstance(word, str) for word in row):
            raise DataError(
                f"{name} must hold lists of texts, one for each word; row {number} (from 0) is {repr(row)[:60]}"
            )
    return [[str(word) for word in row] for row in values]


def texts_of(X: Any) -> tuple[list[Any], int]:  # noqa: N803
    """Read X as texts or pairs of texts. Raises: DataError: it holds something else.

    Returns:
        The texts or pairs, and the number of columns, 1 or 2.
    """
    if isinstance(X, str) or not hasattr(X, "__len__"):
        raise DataError(f"X must be texts: a list, an array or a column of them; got {type(X).__name__}")
    table = np.empty((len(X), 0)) if len(X) == 0 else np.asarray(X, dtype=object)
    if len(table) == 0:
        raise DataError("X has 0 sample(s); at least one text is needed")
    num_columns = 1 if table.ndim == 1 else table.shape[1]
    if table.ndim > 2 or num_columns not in (1, 2):
        raise DataError(f"X must be texts, (rows,) or (rows, 1), or pairs of texts, (rows, 2); got shape {table.shape}")
    rows = [tuple(row) for row in table.reshape(len(table), num_columns).tolist()]
    for number, row in enumerate(rows):
        wrong = [cell for cell in row if not isinstance(cell, str)]
        if wrong:
            raise DataError(f"X must hold texts; row {number} (from 0) holds {repr(wrong[0])[:60]}")
    return [row[0] for row in rows] if num_columns == 1 else rows, num_columns


def choices_of(X: Any) -> tuple[list[str], list[list[str]]]:  # noqa: N803
    """Read X as prompts and their candidates: (prompt, [candidate, ...]) a row, or a column each. Raises: DataError.

    Returns:
        The prompts, (rows,), and the candidates of each, (rows, candidates).
    """
    if isinstance(X, str) or not hasattr(X, "__len__"):
        raise DataError(f"X must be a list of (prompt, [candidate, ...]), or columns of texts; got {type(X).__name__}")
    rows = X.to_numpy() if hasattr(X, "iloc") else np.asarray(X) if isinstance(X, np.ndarray) else X
    if len(rows) == 0:
        raise DataError("X has 0 sample(s); at least one prompt with its candidates is needed")
    prompts, candidates = [], []
    for number, row in enumerate(rows):
        is_list = not isinstance(row, str) and hasattr(row, "__len__")
        prompt, *rest = row if is_list and len(row) > 1 else [row]
        given = list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple | np.ndarray) else rest
        if len(given) < 2 or not all(isinstance(text, str) for text in [prompt, *given]):
            raise DataError(
                f"row {number} (from 0) of X must be a prompt with two candidates or more, (text, [text, text]); got "
                f"{row!r:.60}"
            )
        prompts.append(str(prompt))
        candidates.append([str(text) for text in given])
    return prompts, candidates


def labels_of(y: Any, texts: Sequence[Any], sample_weight: Any) -> np.ndarray:
    """Check y and the weights. Raises: ValueError."""
    if y is None:
        raise DataError("this estimator requires y to be passed, but the target y is None")
    # Whole numbers of pandas that may be missing would become fractions.
    kind = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    if kind is not None and not y.isna().any():
        y = y.to_numpy(dtype=kind)
    labels: np.ndarray = column_or_1d(y, warn=True)
    if labels.dtype == object:
        _check_present(labels)
    check_consistent_length(texts, labels)
    if len(texts) < 2:
        raise DataError("X has 1 sample; at least two texts are needed")
    if sample_weight is not None:
        _check_weights(np.asarray(sample_weight, dtype=np.float64), len(labels))
    return labels


def _check_present(labels: np.ndarray) -> None:
    """Check that no row lacks its label. Raises: DataError."""
    for row, label in enumerate(labels):
        is_nan = isinstance(label, float) and np.isnan(label)
        if label is None or is_nan or type(label).__name__ == "NAType":
            raise DataError(f"y has no label in row {row} (from 0), but {label}; remove the row, or give it one")


def _check_weights(weights: np.ndarray, num_rows: int) -> None:
    """Check the weights of rows. Raises: DataError: they are no equal weights above 0, one a row."""
    if weights.ndim > 1 or (weights.ndim == 1 and len(weights) != num_rows):
        raise DataError(f"sample_weight must be ({num_rows},), a weight for each row; got shape {weights.shape}")
    if not (weights > 0).any():
        raise DataError("sample_weight must not be zero for all rows")
    if np.unique(weights).size > 1:
        raise DataError(
            f"sample_weight: {NO_ROW_WEIGHTS}; for classes, pass settings={{'class_weights': 'balanced'}}; for rows, "
            "repeat them"
        )
