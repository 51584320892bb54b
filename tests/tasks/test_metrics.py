"""The metric modules against scikit-learn's definitions worked out by hand, with the network switched off."""

import warnings

import numpy as np
import pytest

from nlp_ft.tasks.class_scores import ClassificationScores
from nlp_ft.tasks.metrics import confusion_matrix, margin_of_share, most_confused, per_class, score

PREDICTED = np.array([0, 0, 1, 1, 2, 2, 2, 0])
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
# F1: label 0 has 2 hits, 3 predicted, 3 true; label 1 has 1, 2, 2; label 2 has 2, 3, 3.
F1S = [2 / 3, 1 / 2, 2 / 3]


def test_scores_are_those_worked_out_by_hand() -> None:
    assert score(PREDICTED, LABELS) == pytest.approx(
        {
            "accuracy": 5 / 8,
            "macro_f1": sum(F1S) / 3,
            "micro_f1": 5 / 8,
            "weighted_f1": (3 * F1S[0] + 2 * F1S[1] + 3 * F1S[2]) / 8,
            # (c s - sum t p) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)), c = 5, s = 8, t = p = (3, 2, 3)
            "matthews": (5 * 8 - 22) / (8**2 - 22),
        },
        abs=1e-12,
    )


def test_the_confusion_matrix_has_a_row_for_each_true_label_even_an_absent_one() -> None:
    assert confusion_matrix(PREDICTED, LABELS, 4).tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_the_most_frequent_mistakes_come_first_and_single_ones_are_left_out() -> None:
    mistakes = [(0, 1)] * 2 + [(2, 0)] * 4 + [(1, 2)] + [(1, 0)] * 3
    references, predicted = np.array([*mistakes, *[(i, i) for i in range(3)] * 5]).T
    expected = [("c", "a", 4), ("b", "a", 3), ("a", "b", 2)]
    assert most_confused(predicted, references, ["a", "b", "c"]) == expected
    assert most_confused(predicted, references, ["a", "b", "c"], most=1) == expected[:1]


def test_the_per_class_table_names_labels_and_counts() -> None:
    rows = per_class(PREDICTED, LABELS, ["a", "b", "c"])
    assert [row["label"] for row in rows] == ["a", "b", "c"]
    assert [row["precision"] for row in rows] == pytest.approx([2 / 3, 1 / 2, 2 / 3])
    assert [row["recall"] for row in rows] == pytest.approx([2 / 3, 1 / 2, 2 / 3])
    assert [row["support"] for row in rows] == [3.0, 2.0, 3.0]


def test_rows_of_one_label_have_no_correlation_and_no_warning() -> None:
    one = np.zeros(4, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(one, one)
    assert (found["accuracy"], found["matthews"]) == (1.0, 0.0)


def test_batches_added_one_by_one_give_the_same_as_all_at_once() -> None:
    whole = ClassificationScores(keep_in_memory=True).compute(predictions=PREDICTED, references=LABELS)
    parts = ClassificationScores()
    for start, end in ((0, 3), (3, 4), (4, 8)):
        parts.add_batch(predictions=PREDICTED[start:end], references=LABELS[start:end])
    assert parts.compute() == whole


def test_the_margin_of_a_share_covers_the_share_in_about_95_percent_of_samples_and_is_never_zero() -> None:
    generator = np.random.default_rng(0)
    for share, num_rows in ((0.5, 25), (0.9, 50), (0.97, 100), (0.1, 400)):
        found = generator.binomial(num_rows, share, 20_000) / num_rows
        middle = (found * num_rows + 2) / (num_rows + 4)
        widths = np.array([margin_of_share(value, num_rows) for value in found])
        assert 0.93 <= float(np.mean(np.abs(middle - share) <= widths)) <= 0.985
    assert margin_of_share(1.0, 25) == pytest.approx(1.96 * (27 / 29 * 2 / 29 / 29) ** 0.5)
