"""Baselines that a model must beat to be worth its cost: the best constant answer, and TF-IDF with a linear model."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from nlp_ft.data.text import TextData
from nlp_ft.tasks.metrics import score

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

MOST_ROWS = 20_000
"""Most rows of train for which a recipe that does not say gets baselines: they take seconds up to there."""
TITLES = {
    "majority": "the majority label",
    "majority_set": "the most frequent set of labels",
    "no_label": "no label",
    "mean": "the mean of train",
    "tfidf_logistic_regression": "TF-IDF with logistic regression",
    "tfidf_ridge": "TF-IDF with ridge regression",
    "first_sentence": "the first sentence",
    "tfidf_sentence": "the nearest sentence by TF-IDF",
    "no_answer": "no answer",
    "chance": "chance",
    "longest_candidate": "the longest candidate",
    "tfidf_candidate": "the nearest candidate by TF-IDF",
    "most_frequent_tag": "the most frequent tag",
    "tag_of_word": "the most frequent tag of each word",
}
"""Baseline -> its name for people."""
Scores = dict[str, dict[str, dict[str, float]]]
"""Split -> baseline -> metric -> value."""


def short_title(name: str) -> str:
    """Name a baseline in few letters, for tables: `TF-IDF`, `majority`."""
    if name == "most_frequent_tag":
        return "one tag"
    return "TF-IDF" if name.startswith("tfidf") else name.replace("_", " ")


def are_wanted(setting: Literal["auto"] | bool, num_rows: int) -> bool:
    """Whether a run computes baselines.

    Args:
        setting: `baselines` of the recipe.
        num_rows: rows of train.
    """
    return num_rows <= MOST_ROWS if setting == "auto" else setting


def held_out(splits: Iterable[str]) -> list[str]:
    """The splits that baselines are scored on: all but train."""
    return [split for split in splits if split != "train"]


def score_majority(train_labels: np.ndarray, labels: Mapping[str, np.ndarray]) -> Scores:
    """Score the most frequent label of train.

    Args:
        train_labels: label ids of train, (rows of train,).
        labels: split -> label ids to score on, (rows,).
    """
    values, counts = np.unique(train_labels, return_counts=True)
    most = values[counts.argmax()]
    return {split: {"majority": score(np.full_like(of_split, most), of_split)} for split, of_split in labels.items()}


def predict_by_words(
    data: TextData,
    model: "LogisticRegression | OneVsRestClassifier | Ridge",
    splits: Sequence[str],
    probabilities: bool = False,
) -> dict[str, np.ndarray]:
    """Fit a linear model on words and pairs of words of train, weighted by TF-IDF.

    Args:
        data: the texts; those of a pair are joined.
        model: the model to fit.
        splits: the splits to predict for.
        probabilities: whether to predict the probability of each label.

    Returns:
        Split -> prediction for each row, (rows, ...).
    """
    # scikit-learn takes seconds to import, and training can begin without it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        features = {"train": words.fit_transform(data.texts("train"))}
        features |= {split: words.transform(data.texts(split)) for split in splits}
    except ValueError:
        # No text of train has a word of two letters or more; then the model knows nothing but the labels.
        features = {split: np.zeros((len(data.texts(split)), 1)) for split in ("train", *splits)}
    with warnings.catch_warnings():
        # A baseline may stop before its last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features["train"], data.labels("train"))
    predict = model.predict_proba if probabilities else model.predict
    return {split: predict(features[split]) for split in splits}


def logistic_regression() -> "LogisticRegression":
    """Make the regression; its random numbers are its own.

    On Banking77 (10,003 rows, 77 labels), this solver and tolerance take 5 s and reach 89.4 %; the default solver takes
    24 s and reaches 89.4 %.
    """
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10, solver="saga", tol=3e-3, random_state=0)
