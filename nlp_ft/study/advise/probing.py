"""What a probe says of the data: its cross-validated score in several layers, and its learning curve.

The rows are a sample of train. It is done for tasks with one label a row, whose score is a share.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nlp_ft.recipe import Recipe
from nlp_ft.study.advise.curves import Estimate, RowCurve, row_curve
from nlp_ft.tasks.task import Task
from nlp_ft.training.probe.features import layer_features
from nlp_ft.training.probe.fit import Score, fit, validate

SHARES = (0.25, 0.5, 1.0)
FOLDS = 5
TIMED = 16
"""Rows whose features are timed first."""
LEAST_ROWS, MOST_ROWS = 50, 1_000
"""Rows of the sample, where train has so many."""
SHARE_OF_FIT = 0.1
"""The share of the seconds that one cross-validation may take; if the first takes more, the others are left out."""
LAST, MIDDLE, MEAN = "last", "middle", "mean"


@dataclass(frozen=True)
class Probe:
    """The evidence of a probe.

    Args:
        layers: `last`, `middle` and `mean` (of all layers) -> cross-validated score; some may be left out.
        points: (rows, score, standard error) of the learning curve in the last layer.
        rows: rows of the sample.
        row_seconds: seconds of the network for each row.
    """

    layers: Mapping[str, Estimate]
    points: Sequence[tuple[int, float, float]]
    rows: int
    row_seconds: float

    def curve(self, num_rows: int) -> RowCurve | None:
        """Fit the learning curve; `num_rows` is the number of rows of train."""
        return row_curve(self.points, num_rows)

    def score(self, num_rows: int) -> Estimate:
        """Predict the score of a probe on the last layer of so many rows."""
        seen, curve = self.layers[LAST], self.curve(num_rows)
        if curve is None:
            return seen
        added = curve.error_rate(self.points[-1][0]) - curve.error_rate(num_rows)
        return Estimate(seen.value + added, float(np.hypot(seen.error, added / 2)))


def has_one_label(task: Task, metric: str) -> bool:
    """Whether each row has one label and the score is a share, so that a probe can be scored."""
    labels = task.data.labels("train")
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and metric != "loss"


def probe(recipe: Recipe, task: Task, seconds: float) -> Probe | None:
    """Fit probes on features of the frozen network; None if the task has none, or no class has rows for two folds.

    Args:
        recipe: a recipe without a test split.
        task: its task.
        seconds: the time that it may take, about.

    Raises:
        NlpFtError: data or model cannot be read.
    """
    if not recipe.has_row_vectors or not has_one_label(task, recipe.training.metric):
        return None
    network = task.build_model(task.data.label_names)
    network.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    num_rows = task.data.windows("train").num_rows
    order = np.random.default_rng(0).permutation(num_rows)
    begun = time.perf_counter()
    layer_features(recipe, task, ["train"], model=network, rows=np.sort(order[:TIMED]))
    row_seconds = (time.perf_counter() - begun) / min(TIMED, num_rows)
    chosen = np.sort(order[: min(MOST_ROWS, max(LEAST_ROWS, int(0.6 * seconds / row_seconds)))])
    features = layer_features(recipe, task, ["train"], model=network, rows=chosen)["train"]
    score = _score(task, recipe.training.metric)
    return probe_of_features(features, task.data.labels("train")[chosen], score, row_seconds, seconds)


def probe_of_features(
    features: np.ndarray, labels: np.ndarray, score: Score, row_seconds: float = 0.0, seconds: float = float("inf")
) -> Probe | None:
    """Score probes on features, (layers, rows, hidden), of rows with labels, (rows,); see `probe`."""
    kinds = {LAST: features[-1]}
    if len(features) > 2:
        kinds |= {MIDDLE: features[len(features) // 2], MEAN: features.mean(0)}
    layers: dict[str, Estimate] = {}
    penalty = 0.0
    for name, of_layer in kinds.items():
        begun = time.perf_counter()
        found = validate(of_layer, labels, score)
        if np.isnan(found.mean):
            return None
        layers[name] = Estimate(found.mean, _error(found.mean, found.standard_error, len(labels)))
        penalty = penalty or found.penalty
        if time.perf_counter() - begun > SHARE_OF_FIT * seconds:
            break
    return Probe(layers, list(_points(features[-1], labels, score, penalty)), len(labels), row_seconds)


def _score(task: Task, metric: str) -> Score:
    def score(predicted: np.ndarray, references: np.ndarray) -> float:
        return task.outputs.score(predicted, references)[metric]

    return score


def _error(mean: float, standard_error: float, num_rows: int) -> float:
    """Return the standard error of a share; five folds may happen to agree, so it is at least the binomial one."""
    return max(standard_error, float(np.sqrt(max(mean * (1 - mean), 1 / num_rows) / num_rows)))


def _points(
    features: np.ndarray, labels: np.ndarray, score: Score, penalty: float
) -> Iterator[tuple[int, float, float]]:
    """Score probes that learn from a share of the rows, on the folds that are left out: (rows, mean, error)."""
    order = np.random.default_rng(0).permutation(len(labels))
    folds = np.array_split(order, min(FOLDS, len(order)))
    for share in SHARES:
        scores = []
        for number, fold in enumerate(folds):
            learned = np.concatenate([other for i, other in enumerate(folds) if i != number])
            learned = learned[: max(2, round(share * len(learned)))]
            model = fit(features[learned], labels[learned], int(labels.max()) + 1, penalty)
            scores.append(score(model.logits(features[fold]).argmax(1), labels[fold]))
        mean = float(np.mean(scores))
        error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
        yield round(share * len(labels) * (1 - 1 / len(folds))), mean, _error(mean, error, len(labels))
