"""Scores that are carried on over steps and rows, against curves whose end is known."""

import pytest

from nlp_ft.study.advise.curves import Estimate, after_steps, row_curve


def test_a_whole_run_is_not_carried_on() -> None:
    assert after_steps([(50, 0.5), (100, 0.8)], 1.0, 100) == Estimate(0.8, 0.0)


def test_one_point_is_carried_on_by_the_usual_power() -> None:
    # 0.4 x (1 / 10) ** 0.1 = 0.4 x 0.794328
    found = after_steps([(10, 0.6)], 1.0, 100)
    assert found.value == pytest.approx(1 - 0.4 * 0.794328, abs=1e-6)
    assert found.error == pytest.approx(0.4 * (1 - 0.794328) / 2, abs=1e-6)


def test_the_power_is_the_mean_of_that_seen_and_the_usual_one() -> None:
    # The distance to 1 halves while the steps grow fourfold, a power of 0.5: 0.4 x (1 / 16) ** 0.3.
    found = after_steps([(5, 0.2), (20, 0.6)], 1.0, 320)
    assert found.value == pytest.approx(1 - 0.4 * 16**-0.3, abs=1e-9)


def test_a_score_that_falls_is_carried_on_as_if_it_had_stayed() -> None:
    # The power seen counts as 0, so half the usual one is left.
    assert after_steps([(10, 0.8), (20, 0.7)], 1.0, 200).value == pytest.approx(1 - 0.3 * 10**-0.05)


def test_a_loss_is_carried_on_towards_0() -> None:
    found = after_steps([(10, 0.4)], 0.0, 100)
    assert found.value == pytest.approx(0.4 * 10**-0.1)
    assert found.error > 0


def test_the_power_law_of_rows_is_found_again() -> None:
    points = [(rows, 1 - 2.0 * rows**-0.5, 0.01) for rows in (100, 200, 400)]
    curve = row_curve(points, 500)
    assert curve is not None
    assert curve.power == pytest.approx(0.5)
    assert curve.error_rate(500) == pytest.approx(2 * 500**-0.5)
    assert curve.gain(4.0).value == pytest.approx(500**-0.5)
    assert curve.rows_for(500**-0.5) == 1_500


def test_rows_that_bring_nothing_promise_nothing() -> None:
    curve = row_curve([(100, 0.8, 0.01), (400, 0.7, 0.01)], 500)
    assert curve is not None
    assert (curve.power, curve.gain(2.0).value, curve.rows_for(0.01)) == (0.0, 0.0, None)


def test_more_than_all_errors_cannot_be_gained() -> None:
    curve = row_curve([(100, 0.8, 0.01), (400, 0.9, 0.01)], 400)
    assert curve is not None
    assert curve.rows_for(0.11) is None


def test_a_perfect_score_has_a_finite_curve() -> None:
    curve = row_curve([(10, 0.9, 0.1), (40, 1.0, 0.0)], 50)
    assert curve is not None
    assert 0 < curve.error_rate(50) < 0.1


def test_one_point_has_no_curve() -> None:
    assert row_curve([(100, 0.8, 0.01)], 100) is None
