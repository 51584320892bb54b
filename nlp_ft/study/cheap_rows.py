"""The cheap rows of a comparison: the baselines of the task, and logistic regression on features of the encoder.

Two kinds of features: the encoder's embeddings, and the output of all its frozen layers. Each is the mean over the
tokens of a text; that of the layers is the mean over them, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Task
from nlp_ft.training.probe.features import layer_features
from nlp_ft.training.probe.fit import fit, validate

EMBEDDINGS, PROBE = "embeddings", "probe"
"""Logistic regression on the embeddings, and on the output of the layers; both need one pass through the encoder."""
SHORT = {"tfidf_logistic_regression": "TF-IDF", "tfidf_ridge": "TF-IDF", "tfidf_sentence": "TF-IDF"}
"""Baseline of a task -> its name in a narrow table, where the name in its scores is too long."""


@dataclass(frozen=True)
class CheapRow:
    """A baseline: its scores on test and, where it was timed, its seconds."""

    title: str
    scores: Mapping[str, float]
    seconds: float | None = None


def cheap_rows(recipe: Recipe, task: Task) -> list[CheapRow]:
    """Score the baselines of the task on test; of a text classifier, also those on features of the encoder.

    Args:
        recipe: the recipe, with all splits.
        task: its task.

    Raises:
        NlpFtError: data or model cannot be read.
    """
    rows = [
        # A correlation with a constant, which is NaN, counts as 0.
        CheapRow(
            SHORT.get(name, name.replace("_", " ")),
            {metric: value if value == value else 0.0 for metric, value in scores.items()},
        )
        for name, scores in task.score_baselines().get("test", {}).items()
    ]
    if not (recipe.has_row_vectors and _has_one_label_a_text(task)):
        return rows
    begun = perf_counter()
    features = layer_features(recipe, task, ("train", "test"), pooling="mean")
    train, test = features["train"], features["test"]
    seconds = perf_counter() - begun
    embeddings = _scored(EMBEDDINGS, train[0], test[0], task, seconds)
    return [*rows, embeddings, _scored(PROBE, train.mean(0), test.mean(0), task, seconds)]


def _has_one_label_a_text(task: Task) -> bool:
    labels = task.data.labels("train")
    is_ids = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return task.inputs == "texts" and is_ids


def _scored(title: str, train: np.ndarray, test: np.ndarray, task: Task, seconds: float) -> CheapRow:
    """Fit logistic regression on features of train, (rows, hidden), its penalty chosen there; score test.

    `seconds` is what the features took; the fit comes on top.
    """
    begun = perf_counter()
    labels = task.data.labels("train")
    linear = fit(train, labels, len(task.data.label_names), validate(train, labels).penalty)
    scores = task.outputs.score(linear.logits(test).argmax(-1), task.data.labels("test"))
    return CheapRow(title, scores, seconds + perf_counter() - begun)
