"""Values of the wrong kind in schedules of unfreezing, and loops that start in the middle of a run."""

import re
from typing import Any

import pytest

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise import LossBelow, Phase, Plateau, UnfreezePlan, UnfreezeSchedule, UnfreezeState

FORM = "must be a duration such as 3ep (epochs), 200st (steps) or 10% (of the run)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": "1x"}, f"every {FORM}; got '1x'"),
        ({"every": 1}, f"every {FORM}; did you mean 1ep or 1st?; got 1"),
        ({"every": "110%"}, "every must be at most 100%; got '110%'"),
        ({"layer_warmup": "2"}, f"layer_warmup {FORM}; got '2'"),
        ({"plateau": {"at_most": "3"}}, f"at_most {FORM}; got '3'"),
        ({"plateau": "loss"}, "plateau must be a mapping with some of the keys metric, patience, min_delta, at_least"),
        ({"plateau": {"pateince": 2}}, "plateau must be a mapping with some of the keys metric, patience"),
        ({"plateau": {"patience": "2"}}, "patience must be a whole number of at least 1, got '2'"),
        ({"plateau": {"patience": 0}}, "patience must be a whole number of at least 1, got 0"),
        ({"loss_below": 0.5}, "loss_below must be a mapping with some of the keys value, at_least, at_most; got 0.5"),
        ({"loss_below": {"value": "0.5"}}, "loss_below: value must be a number, got '0.5'"),
        ({"blocks_per_phase": "2"}, "blocks_per_phase must be a whole number of at least 1, got '2'"),
        ({"blocks_per_phase": 1.5}, "blocks_per_phase must be a whole number of at least 1, got 1.5"),
        ({"embeddings": "Never"}, "embeddings must be last or never, got 'Never'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnfreezeError, match=f"^{re.escape(message)}"):
        UnfreezeSchedule.from_settings(3, unfreeze=settings)


@pytest.mark.parametrize("blocks", ["2", 1.5, True, "al", -1, 4])
def test_the_blocks_that_train_are_a_whole_number_or_all(blocks: Any) -> None:
    with pytest.raises(UnfreezeError, match=f"^trainable_blocks must be at most 3, .*; got {blocks!r}$"):
        UnfreezeSchedule.fixed(3, blocks)


def test_plain_values_in_phases_and_conditions_are_read() -> None:
    layers: Any = [3, 4]
    start: Any = "2st"
    assert Phase(layers, start) == Phase(frozenset({3, 4}), Duration(2, "st"))
    at_most: Any = "1ep"
    assert Plateau(at_most=at_most) == Plateau(at_most=Duration(1, "ep"))
    assert LossBelow(0.5, at_most=at_most) == LossBelow(0.5, at_most=Duration(1, "ep"))


@pytest.mark.parametrize(
    ("every", "starts"),
    [(Duration(2, "st"), [0, 2, 4, 6]), (Plateau(at_most=Duration(2, "st")), [0, 2, 4, 6]), (Plateau(), [0])],
)
def test_a_loop_that_starts_in_the_middle_of_a_run_is_in_the_phase_of_that_step(every: Any, starts: list[int]) -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, every), total_steps=10, steps_per_epoch=5)
    state = UnfreezeState()
    began = plan.on_step(state, 7)
    assert (state.starts, began) == (starts, len(starts) > 1)
    assert plan.on_step(state, 8) is False
