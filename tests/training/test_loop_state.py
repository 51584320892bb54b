"""The state of the loop counts evaluations for the patience, and knows the best one."""

import pytest

from nlp_ft.training.loop_state import LoopState


@pytest.mark.parametrize(
    ("metric", "values"), [("accuracy", [0.80, 0.84, 0.88, 0.90]), ("loss", [0.40, 0.36, 0.32, 0.30])]
)
def test_min_delta_renews_the_patience_and_does_not_choose_the_weights(metric: str, values: list[float]) -> None:
    state, without_best = LoopState(), []
    for step, value in enumerate(values, start=1):
        state.global_step = step
        state.note_score(metric, value, min_delta=0.05)
        without_best.append(state.evaluations_without_best)
    assert (state.best_step, state.best_value) == (4, values[3])
    assert (state.best_step_of_phase, state.best_value_of_phase) == (4, values[3])
    assert without_best == [0, 1, 0, 1]
    state.begin_phase(1)
    assert (state.value_to_beat, state.evaluations_without_best, state.best_value) == (None, 0, values[3])
