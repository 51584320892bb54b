"""Probes on features that are known to tell labels apart, or not."""

import numpy as np
import pytest

from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.probing import Probe, probe_of_features
from nlp_ft.training.probe.fit import accuracy

LABELS = np.arange(60) % 3
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(size=(60, 5)).astype(np.float32)
CLEAR = (np.eye(3, 5)[LABELS] + 0.01 * NOISE).astype(np.float32)


def test_the_layers_that_know_the_labels_score() -> None:
    found = probe_of_features(np.stack([NOISE, 100 * CLEAR, NOISE, NOISE]), LABELS, accuracy)
    assert found is not None
    assert found.layers["last"].value < 0.6
    assert found.layers["mean"].value == 1.0
    assert found.layers["middle"].value == found.layers["last"].value
    found = probe_of_features(np.stack([NOISE, CLEAR, CLEAR]), LABELS, accuracy)
    assert found is not None
    # No error in 60 rows is no proof: the error is that of one row in 60.
    assert found.layers["last"] == Estimate(1.0, pytest.approx(1 / 60))  # type: ignore[arg-type]


def test_the_learning_curve_has_a_point_for_25_50_and_100_percent_of_what_a_fold_leaves() -> None:
    found = probe_of_features(np.stack([NOISE, NOISE, CLEAR]), LABELS, accuracy)
    assert found is not None
    assert [rows for rows, _, _ in found.points] == [12, 24, 48]
    assert found.points[-1][1] == found.layers["last"].value
    assert found.rows == 60


def test_features_of_one_layer_have_no_middle() -> None:
    found = probe_of_features(CLEAR[None], LABELS, accuracy)
    assert found is not None
    assert set(found.layers) == {"last"}


def test_a_class_of_one_row_each_cannot_be_probed() -> None:
    assert probe_of_features(CLEAR[None, :3], LABELS[:3], accuracy) is None


def test_the_score_is_carried_on_to_all_rows() -> None:
    points = [(rows, 1 - 2.0 * rows**-0.5, 0.01) for rows in (100, 200, 400)]
    found = Probe({"last": Estimate(0.9, 0.01)}, points, 500)
    assert found.score(1_600).value == pytest.approx(0.9 + 2 * (400**-0.5 - 1600**-0.5))
    assert found.score(400).value == pytest.approx(0.9)
