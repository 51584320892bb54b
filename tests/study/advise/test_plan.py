"""The time of the trials, divided."""

from nlp_ft.study.advise.plan import TrialPlan, plan_trials

CANDIDATES = ["llrd", "head_only", "full"]


def test_all_candidates_get_the_same_steps_and_the_cheap_ones_run_first_after_the_default() -> None:
    # Three starts of 2 s, 6 x 100 rows of 0.01 s: 188 s are left for steps that cost 1 + 0.35 + 1.
    plan = plan_trials(["llrd", "full", "head_only"], 200.0, 1.0, 0.01, 2.0, 300, 100)
    assert plan == TrialPlan(["llrd", "head_only", "full"], 80, 100)


def test_the_last_candidates_are_dropped_where_time_is_short() -> None:
    # Two starts and 4 x 100 rows leave 54 s for steps of 1.35; of all three, each would get 23 steps.
    assert plan_trials(CANDIDATES, 62.0, 1.0, 0.01, 2.0, 300, 100) == TrialPlan(["llrd", "head_only"], 40, 100)
    assert plan_trials(CANDIDATES, 20.0, 1.0, 0.01, 2.0, 300, 100) == TrialPlan(["llrd"], 16, 100)


def test_a_trial_is_no_longer_than_the_run() -> None:
    assert plan_trials(CANDIDATES, 62.0, 1.0, 0.01, 2.0, 20, 100) == TrialPlan(["llrd", "head_only", "full"], 20, 100)
    assert plan_trials(CANDIDATES, 1e6, 1.0, 0.01, 2.0, 300, 100).steps == 300


def test_scoring_takes_at_most_its_share_and_most_rows_are_left_out_of_a_large_validation() -> None:
    assert plan_trials(["llrd"], 100.0, 0.1, 0.1, 0.0, 300, 10_000).rows == 150
    assert plan_trials(["llrd"], 1e6, 0.1, 0.1, 0.0, 300, 10_000).rows == 500


def test_without_time_there_is_no_trial() -> None:
    assert plan_trials(CANDIDATES, 1.0, 1.0, 0.01, 2.0, 300, 100).strategies == []
    # 11.5 s less a start of 2 s and 2 x 100 rows leave 7 steps, one too few; but a run of 5 steps is whole.
    assert plan_trials(["llrd"], 11.5, 1.0, 0.01, 2.0, 300, 100).strategies == []
    assert plan_trials(["llrd"], 11.5, 1.0, 0.01, 2.0, 5, 100) == TrialPlan(["llrd"], 5, 100)
