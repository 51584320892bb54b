"""The metric of a run on outputs of a linear model, in the unit of the data."""

from dataclasses import replace

import numpy as np
import pytest

from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.multi_label_classification import LabelSetOutputs
from nlp_ft.tasks.text_regression import NumberOutputs
from nlp_ft.training.probe.judge import Judge

NUMBERS = NumberOutputs(("a",), (10.0,), (2.0,))
TWO_NUMBERS = NumberOutputs(("a", "b"), (10.0, 0.0), (2.0, 5.0))


def test_numbers_become_deviations_from_the_mean_of_train_and_labels_stay() -> None:
    assert Judge(NUMBERS, "mse").as_outputs(np.array([10, 14], np.float32)).tolist() == [0.0, 2.0]
    two = np.array([[10, -5], [8, 10]], np.float32)
    assert Judge(TWO_NUMBERS, "mse").as_outputs(two).tolist() == [[0.0, -1.0], [-1.0, 2.0]]
    assert Judge(ClassOutputs(["x", "y"]), "accuracy").as_outputs(np.array([1, 0])).tolist() == [1, 0]


def test_an_error_is_in_the_unit_of_the_data_and_counts_against_the_model() -> None:
    judge = Judge(NUMBERS, "mae")
    assert judge.score(np.array([[0.0], [1.0]]), np.array([0.0, 3.0])) == pytest.approx(-2.0)
    assert Judge(TWO_NUMBERS, "mae").score(np.zeros((2, 2)), np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(-1.75)


def test_labels_have_the_scores_of_the_evaluation() -> None:
    logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    labels = np.array([0, 0, 0, 1])
    outputs = ClassOutputs(["x", "y"])
    assert (
        Judge(outputs, "accuracy").score(logits, labels) == 0.75 == outputs.score(logits.argmax(1), labels)["accuracy"]
    )
    assert Judge(outputs, "macro_f1").score(logits, labels) == pytest.approx((0.8 + 2 / 3) / 2)
    losses = np.log1p(np.exp([-2.0, -2.0, 2.0, -2.0]))
    assert Judge(outputs, "loss").score(logits, labels) == pytest.approx(-losses.mean())


def test_sets_of_labels_are_cut_at_the_threshold_of_the_run() -> None:
    logits, labels = np.array([[1.0, -1.0]]), np.array([[1, 0]], np.int8)
    outputs = LabelSetOutputs(["x", "y"], (0.5, 0.5))
    assert Judge(outputs, "subset_accuracy").score(logits, labels) == 1.0
    assert Judge(replace(outputs, thresholds=(0.9, 0.5)), "subset_accuracy").score(logits, labels) == 0.0
