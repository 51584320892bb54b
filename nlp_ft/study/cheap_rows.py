"""The cheap rows of a comparison: the baselines of the task, and logistic regression on features of the encoder.

Two kinds of features: the encoder's own table of embeddings, and the output of all its frozen layers. Each is the mean
over the tokens of a text; that of the layers is the mean over them, too.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import load_batches
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Task
from nlp_ft.training import build

STATIC, PROBE = "static table", "probe"
"""Logistic regression on the table of embeddings, and on the output of the layers."""
SHORT = {"tfidf_logistic_regression": "TF-IDF", "tfidf_ridge": "TF-IDF", "tfidf_sentence": "TF-IDF"}
"""Baseline of a task -> its name in a narrow table, where the name in its scores is too long."""
PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty, of which cross-validation on train chooses one."""
FOLDS = 5


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
    if not _has_one_label_a_text(task):
        return rows
    begun = perf_counter()
    static = _features(recipe, task, use_layers=False)
    rows.append(_scored(STATIC, static, task, begun))
    begun = perf_counter()
    return [*rows, _scored(PROBE, _features(recipe, task, use_layers=True), task, begun)]


def _has_one_label_a_text(task: Task) -> bool:
    labels = task.data.labels("train")
    is_ids = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return task.inputs == "texts" and is_ids and len(labels) == len(task.data.encoded["train"])


def _features(recipe: Recipe, task: Task, use_layers: bool) -> dict[str, np.ndarray]:
    """Compute the features of the texts of train and test, (rows, hidden)."""
    model: Any = build.layered_model(recipe, task, task.data.label_names).model
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model.to(device)
    embeddings, collator, size = (
        model.get_input_embeddings(),
        task.collator(training=False),
        recipe.training.eval_batch_size,
    )
    found = {}
    for split in ("train", "test"):
        order = np.argsort(-task.data.lengths(split), kind="stable")
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        parts = []
        with evaluating(model), torch.inference_mode():
            for batch in load_batches(task.data.encoded[split], batches, collator):
                inputs = {key: value.to(device) for key, value in model_inputs(batch).items()}
                mask = inputs["attention_mask"].unsqueeze(-1)
                if use_layers:
                    hidden = torch.stack(list(model(**inputs, output_hidden_states=True).hidden_states)).mean(0)
                else:
                    hidden = embeddings(inputs["input_ids"])
                parts.append(((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy())
        found[split] = np.concatenate(parts)[np.argsort(order)]
    return found


def _scored(title: str, features: Mapping[str, np.ndarray], task: Task, begun: float) -> CheapRow:
    """Fit logistic regression on the scaled features of train, its penalty chosen there; score test."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = task.data.labels("train")
    folds = min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    if folds > 1:
        shuffled = StratifiedKFold(folds, shuffle=True, random_state=0)
        model = GridSearchCV(model, {"logisticregression__C": PENALTIES}, cv=shuffled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features["train"], labels)
    scores = task.outputs.score(model.predict(features["test"]), task.data.labels("test"))
    return CheapRow(title, scores, perf_counter() - begun)
