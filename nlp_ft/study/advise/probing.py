"""What a probe says of the data: its cross-validated score in several layers, and its learning curve.

The rows are a sample of train. It is done for tasks whose rows have a vector each, and a score that is at most 1.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from nlp_ft.errors import ModelError
from nlp_ft.recipe import Recipe
from nlp_ft.study.advise.curves import Estimate, RowCurve, row_curve
from nlp_ft.tasks.task import Task
from nlp_ft.training.probe.features import layer_features
from nlp_ft.training.probe.fit import Score, fit, validate
from nlp_ft.training.probe.judge import Judge
from nlp_ft.training.verdict.facts import points

STEPS = (4, 2, 1)
"""The learning curve has a point for every fourth row, every second one, and all."""
FOLDS, FOLDS_OF_PENALTY = 5, 3
TIMED = 16
"""Rows whose features are timed first."""
LEAST_ROWS, MOST_ROWS = 50, 1_000
"""Rows of the sample, where train has so many."""
SHARE_OF_FEATURES, SHARE_OF_FIT = 0.5, 0.2
"""The shares of the seconds for the features, and for the learning curve; where that takes longer, other layers are
left out."""
LAST, MIDDLE, MEAN = "last", "middle", "mean"


@dataclass(frozen=True)
class Probe:
    """The evidence of a probe.

    Args:
        layers: `last`, `middle` and `mean` (of all layers) -> cross-validated score; some may be left out.
        points: (rows, score, standard error) of the learning curve in the last layer.
        rows: rows of the sample.
    """

    layers: Mapping[str, Estimate]
    points: Sequence[tuple[int, float, float]]
    rows: int

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


def is_share(metric: str) -> bool:
    """Whether the metric is a share or a correlation, whose differences are counted in points of 100."""
    return points(metric, 0.01) == "1.0 points"


def probe(recipe: Recipe, task: Task, network: PreTrainedModel, seconds: float) -> Probe | None:
    """Fit probes on features of the frozen network; None if rows have no vector, or are too few.

    Args:
        recipe: a recipe without a test split.
        task: its task.
        network: its network, on its device, with the pretrained weights.
        seconds: the time that it may take, about.

    Raises:
        NlpFtError: data or model cannot be read.
    """
    if not recipe.has_row_vectors or not is_share(recipe.training.metric):
        return None
    num_rows = task.data.windows("train").num_rows
    order = np.random.default_rng(0).permutation(num_rows)
    begun = time.perf_counter()
    try:
        layer_features(recipe, task, ["train"], model=network, rows=np.sort(order[:TIMED]))
    except ModelError:  # such as an image network without a linear head
        return None
    row_seconds = (time.perf_counter() - begun) / min(TIMED, num_rows)
    chosen = np.sort(order[: min(MOST_ROWS, max(LEAST_ROWS, int(SHARE_OF_FEATURES * seconds / row_seconds)))])
    features = layer_features(recipe, task, ["train"], model=network, rows=chosen)["train"]
    judge = Judge(task.outputs, recipe.training.metric)
    labels = judge.as_outputs(task.data.labels("train")[chosen])
    return probe_of_features(features, labels, judge.score, seconds)


def probe_of_features(
    features: np.ndarray, labels: np.ndarray, score: Score, seconds: float = float("inf")
) -> Probe | None:
    """Score probes on features, (layers, rows, hidden), of rows with labels, (rows, ...); see `probe`.

    The penalty is that of the last layer. All scores are on the same folds, so that they compare.
    """
    found = validate(features[-1], labels, score, folds=FOLDS_OF_PENALTY)
    if np.isnan(found.mean):
        return None
    begun = time.perf_counter()
    points = [_scored(features[-1], labels, score, found.penalty, step) for step in STEPS]
    layers = {LAST: Estimate(*points[-1][1:])}
    is_slow = time.perf_counter() - begun > SHARE_OF_FIT * seconds
    if len(features) > 2 and not is_slow:
        for name, of_layer in {MIDDLE: features[len(features) // 2], MEAN: features.mean(0)}.items():
            layers[name] = Estimate(*_scored(of_layer, labels, score, found.penalty, 1)[1:])
    return Probe(layers, points, len(labels))


def _error(mean: float, standard_error: float, num_rows: int) -> float:
    """Return the standard error of a share; five folds may happen to agree, so it is at least the binomial one."""
    return max(standard_error, float(np.sqrt(max(mean * (1 - mean), 1 / num_rows) / num_rows)))


def _scored(
    features: np.ndarray, labels: np.ndarray, score: Score, penalty: float, step: int
) -> tuple[int, float, float]:
    """Score probes on the folds that are left out, each on every `step`-th of the other rows: (rows, mean, error)."""
    is_ids = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    num_outputs = int(labels.max()) + 1 if is_ids else labels.reshape(len(labels), -1).shape[1]
    order = np.random.default_rng(0).permutation(len(labels))
    if is_ids:
        # Class by class, so that each fold, and each part of the others, has its share of each class.
        order = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.arange(len(order)) % FOLDS
    scores, sizes = [], []
    for fold in range(min(FOLDS, len(order))):
        learned, left_out = order[fold_of != fold][::step], order[fold_of == fold]
        model = fit(features[learned], labels[learned], num_outputs, penalty)
        scores.append(score(model.logits(features[left_out]), labels[left_out]))
        sizes.append(len(learned))
    mean = float(np.mean(scores))
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return round(float(np.mean(sizes))), mean, _error(mean, error, len(labels))
