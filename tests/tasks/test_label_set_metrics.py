"""Scores and thresholds of label sets: equal to their definitions, worked out row by row, on 1,000 random cases."""

import math
from itertools import product

import numpy as np
import pytest
from sklearn import metrics as sk

from nlp_ft.tasks.label_set_metrics import GRID, most_frequent_set, per_label, score, tuned

CASES = 1000


def case(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, predictions and references; few rows, ties, and labels that never occur or are never predicted."""
    generator = np.random.default_rng(number)
    rows, labels = int(generator.integers(1, 16)), int(generator.integers(2, 5))
    share = generator.random(labels) * generator.integers(0, 2, labels)
    references = (generator.random((rows, labels)) < share).astype(np.int64)
    probabilities = generator.random((rows, labels)) * 0.7 + references * 0.3 * generator.random()
    if number % 3 == 0:
        probabilities = probabilities.round(1)
    probabilities = probabilities.astype(np.float32)
    return probabilities, (probabilities >= 0.5).astype(np.int64), references


def f1(hits: float, given: float, true: float, if_none: float) -> float:
    return 2 * hits / (given + true) if given + true else if_none


def by_hand(probabilities: np.ndarray, predicted: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Every score by its definition, one decision after the other."""
    rows, labels = references.shape
    of_label, support, precisions, correlations = [], [], [], []
    for i in range(labels):
        p, r = predicted[:, i].tolist(), references[:, i].tolist()
        hits = sum(a and b for a, b in zip(p, r))
        of_label.append(f1(hits, sum(p), sum(r), 0.0))
        support.append(sum(r))
        if sum(r):
            precisions.append(average_precision(probabilities[:, i].tolist(), r))
        deviations = [(a - sum(p) / rows, b - sum(r) / rows) for a, b in zip(p, r)]
        spread = math.sqrt(sum(a * a for a, _ in deviations) * sum(b * b for _, b in deviations))
        correlations.append(sum(a * b for a, b in deviations) / spread if spread > 1e-12 else 0.0)
    decisions = list(zip(predicted.ravel().tolist(), references.ravel().tolist()))
    of_row = [f1(int((a & b).sum()), int(a.sum()), int(b.sum()), 1.0) for a, b in zip(predicted, references)]
    return {
        "macro_f1": sum(of_label) / labels,
        "micro_f1": f1(sum(a and b for a, b in decisions), predicted.sum(), references.sum(), 0.0),
        "weighted_f1": sum(a * b for a, b in zip(of_label, support)) / sum(support) if sum(support) else 0.0,
        "samples_f1": sum(of_row) / rows,
        "average_precision": sum(precisions) / len(precisions) if precisions else math.nan,
        "subset_accuracy": sum(a.tolist() == b.tolist() for a, b in zip(predicted, references)) / rows,
        "hamming_loss": sum(a != b for a, b in decisions) / (rows * labels),
        "matthews": sum(correlations) / labels,
    }


def average_precision(probabilities: list[float], references: list[int]) -> float:
    """The sum of precision times gain in recall over the different probabilities, from the highest."""
    found, before = 0.0, 0
    for border in sorted(set(probabilities), reverse=True):
        above = [r for p, r in zip(probabilities, references) if p >= border]
        found += sum(above) / len(above) * (sum(above) - before) / sum(references)
        before = sum(above)
    return found


@pytest.mark.parametrize("cases", [100, pytest.param(CASES, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_are_their_definitions_on_random_cases(cases: int) -> None:
    for number in range(cases):
        arrays = case(number)
        assert score(*arrays) == pytest.approx(by_hand(*arrays), abs=1e-9, nan_ok=True), number


def test_matthews_is_the_mean_of_that_of_scikit_learn() -> None:
    for number in range(100):
        _, predicted, references = arrays = case(number)
        expected = [sk.matthews_corrcoef(r, p) for p, r in zip(predicted.T, references.T)]
        assert score(*arrays)["matthews"] == pytest.approx(np.mean(expected), abs=1e-9), number


def test_the_threshold_of_each_label_gives_the_best_f1_that_any_threshold_gives() -> None:
    for number in range(CASES):
        probabilities, _, references = case(number)
        found = tuned("tuned_per_label", probabilities, references)
        assert ((found > 0) & (found < 1)).all(), number
        for p, r, threshold in zip(probabilities.T.astype(float), references.T, found):
            best = max(f1(r[p >= t].sum(), (p >= t).sum(), r.sum(), 0.0) for t in [*p[p > 0], 2.0])
            assert f1(r[p >= threshold].sum(), (p >= threshold).sum(), r.sum(), 0.0) == pytest.approx(best), number
            assert r.any() or threshold == 0.5


def test_one_threshold_for_all_gives_the_best_micro_f1_of_the_grid() -> None:
    for number in range(0, CASES, 100):
        probabilities, _, references = case(number)
        found = tuned("tuned", probabilities, references)
        assert len(set(found)) == 1
        values = {
            t: sk.f1_score(references, probabilities.astype(float) >= t, average="micro", zero_division=0)
            for t in (*GRID, found[0])
        }
        assert values[found[0]] == pytest.approx(max(values.values())), number


def test_a_threshold_lies_between_two_probabilities_and_takes_the_fewest_rows_of_several() -> None:
    probabilities = np.array([[0.9], [0.8], [0.4], [0.1]])
    assert tuned("tuned_per_label", probabilities, np.array([[1], [1], [0], [0]])) == [pytest.approx(0.6)]
    # F1 is 2/3 after one row, and after all four.
    assert tuned("tuned_per_label", probabilities, np.array([[1], [0], [0], [1]])) == [pytest.approx(0.85)]


def test_the_table_has_the_definitions_of_each_label_and_its_threshold() -> None:
    predicted, references = np.array([[1, 0], [1, 0], [0, 0]]), np.array([[1, 1], [0, 0], [1, 0]])
    assert per_label(predicted, references, ["a", "b"], [0.5, 0.25]) == [
        {"label": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2.0, "threshold": 0.5},
        {"label": "b", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1.0, "threshold": 0.25},
    ]


def test_the_most_frequent_set_is_that_of_the_most_rows() -> None:
    rows = [*product([0, 1], repeat=2), (1, 0)]
    assert most_frequent_set(np.array(rows)).tolist() == [1, 0]
