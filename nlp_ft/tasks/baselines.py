"""Baselines that a model must beat to be worth its cost: the majority label, and TF-IDF with logistic regression."""

from collections.abc import Sequence

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from nlp_ft.tasks.metrics import score


def score_majority(train_labels: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Score the most frequent label of train on another split, with every metric; both arrays are (rows,)."""
    values, counts = np.unique(train_labels, return_counts=True)
    return {"majority": score(np.full_like(labels, values[counts.argmax()]), labels)}


def score_baselines(
    train_texts: Sequence[str], train_labels: np.ndarray, texts: Sequence[str], labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """Fit both baselines on train and score them on another split.

    Args:
        train_texts: texts to fit on.
        train_labels: their label ids, (rows of train,).
        texts: texts to score on.
        labels: their label ids, (rows,).

    Returns:
        Baseline -> metric -> value.
    """
    baselines = {
        "majority": DummyClassifier(strategy="most_frequent"),
        "tfidf_logistic_regression": make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
        ),
    }
    return {
        name: score(baseline.fit(train_texts, train_labels).predict(texts), labels)
        for name, baseline in baselines.items()
    }
