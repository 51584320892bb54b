"""Advice from literal evidence: the clear case, the noisy one, and the cheap one."""

import pytest

from nlp_ft.study.advise.advice import Choice, Cost, Measured, beyond_probe, choose, combined, updated
from nlp_ft.study.advise.curves import Estimate
from nlp_ft.study.advise.measures import bounded
from nlp_ft.study.advise.prior import Belief, Prior

LITTLE = Prior("head_only", "little data")
MUCH = Prior("llrd", "much data")
COSTS = {"llrd": Cost(100, 80, 120), "full": Cost(100, 80, 120), "head_only": Cost(10, 8, 12)}
SCORE = Estimate(0.8, 0.02)


def advised(prior: Prior, **gains: Measured) -> Choice:
    return choose(["llrd", *gains], prior, gains, SCORE, COSTS, 0.01, 1)


def whole(gain: float, error: float) -> Measured:
    return Measured(Estimate(gain, error), "trial")


def test_a_belief_and_a_measurement_meet_by_their_precisions() -> None:
    # A whole run without noise of rows has the noise of two seeds, sqrt(2): (0 / 1 + 6 / 2) / (1 / 1 + 1 / 2).
    found = updated(Belief(0.0, 1.0), whole(6.0, 0.0))
    assert (found.mean, found.deviation) == pytest.approx((2.0, (2 / 3) ** 0.5))
    assert updated(Belief(-6.0, 6.0), None) == Belief(-6.0, 6.0)


def test_what_the_rest_of_a_run_may_change_counts_as_noise() -> None:
    gain = Estimate(6.0, 0.0)
    assert Measured(gain, "trial", 1.0).error(Belief(0.0, 1.0)) == pytest.approx(2**0.5)
    assert Measured(gain, "trial", 0.5).error(Belief(0.0, 1.0)) == pytest.approx((2 + 1.5**2) ** 0.5)
    assert Measured(gain, "trial", 0.5).error(Belief(-6.0, 6.0)) == pytest.approx((2 + 3.0**2) ** 0.5)


def test_estimates_are_weighted_by_their_precision() -> None:
    found = combined([Estimate(0.6, 0.1), Estimate(0.9, 0.2)])
    assert (found.value, found.error) == pytest.approx((0.66, 0.0894427), abs=1e-6)


def test_the_default_is_expected_above_a_probe_by_the_published_gain_or_half_the_errors() -> None:
    assert beyond_probe(Estimate(0.5, 0.0), None, 0.01) == Estimate(0.56, 0.06)
    assert beyond_probe(Estimate(0.98, 0.0), None, 0.01).value == pytest.approx(0.99)
    # A measured loss of 12 points moves the published gain of 6.
    measured = beyond_probe(Estimate(0.5, 0.0), whole(-12.0, 0.0), 0.01)
    assert measured.value == pytest.approx(0.5 + 0.01 * (6 / 36 + 12 / 2) / (1 / 36 + 1 / 2))


def test_the_clear_case_overrules_the_table() -> None:
    choice = advised(LITTLE, head_only=whole(-10.0, 2.0))
    assert choice.strategy == "llrd"
    assert choice.reason == "head_only is worse"
    assert choice.sure > 0.99
    [head] = [one for one in choice.candidates if one.strategy == "head_only"]
    assert (head.word, head.prior.mean) == ("worse", -3.0)
    assert head.score.value == pytest.approx(0.8 + 0.01 * head.gain.mean)


def test_another_strategy_that_is_above_the_noise_is_advised() -> None:
    choice = advised(MUCH, full=whole(4.0, 0.5))
    assert choice.strategy == "full"
    assert choice.reason == "it is +1.2 ± 0.8 points better than llrd, which is above the noise"


def test_in_the_noisy_case_the_default_stays_and_it_is_said_that_nobody_can_tell() -> None:
    choice = advised(LITTLE, head_only=whole(2.0, 9.0), full=whole(1.0, 3.0))
    assert choice.strategy == "llrd"
    assert choice.reason == "cannot tell: head_only, full and llrd are within noise, so the default stays"
    assert choice.sure < 0.8
    assert {one.strategy: one.word for one in choice.candidates if one.strategy != "llrd"} == {
        "head_only": "within noise",
        "full": "within noise",
    }


def test_the_same_gain_on_few_validation_rows_stays_within_noise() -> None:
    assert advised(MUCH, full=whole(4.0, 1.0)).strategy == "full"
    assert advised(MUCH, full=whole(4.0, 6.0)).strategy == "llrd"


def test_a_cheap_strategy_that_surely_loses_little_is_advised() -> None:
    choice = advised(LITTLE, head_only=whole(0.9, 0.2))
    assert choice.strategy == "head_only"
    assert choice.reason == "it loses at most 1 point to llrd (+0.7 ± 1.4), in 10 % of the time"
    dear = {**COSTS, "head_only": Cost(50, 40, 60)}
    measured = {"head_only": whole(0.9, 0.2)}
    assert choose(["llrd", "head_only"], LITTLE, measured, SCORE, dear, 0.01, 1).strategy == "llrd"


def test_without_any_trial_the_default_stays() -> None:
    choice = choose(["llrd", "head_only"], LITTLE, {}, SCORE, COSTS, 0.01, 1)
    assert choice.strategy == "llrd"
    assert choice.reason == "nothing else was measured, so the default stays; the table's head_only was not measured"


def test_a_loss_is_predicted_to_fall_where_a_strategy_gains() -> None:
    choice = choose(["llrd", "full"], MUCH, {"full": whole(4.0, 0.0)}, Estimate(0.5, 0.01), COSTS, 0.005, -1)
    assert choice.strategy == "full"
    assert choice.advised.score.value == pytest.approx(0.5 - 0.005 * 4 / 3)


def test_no_predicted_score_is_above_1_or_below_0() -> None:
    for value, kept in ((1.02, 1.0), (-0.1, 0.0), (0.4, 0.4)):
        choice = choose(["llrd"], MUCH, {}, Estimate(value, 0.1), COSTS, 0.01, 1)
        assert bounded(choice).advised.score == Estimate(kept, choice.advised.score.error)
