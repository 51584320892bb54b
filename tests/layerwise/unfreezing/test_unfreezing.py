"""Unfreeze schedules against literal phases, times and factors."""

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise.unfreezing.phase_table import phase_table
from nlp_ft.layerwise.unfreezing.plan import UnfreezePlan, UnfreezeState
from nlp_ft.layerwise.unfreezing.schedule import Phase, UnfreezeSchedule
from nlp_ft.layerwise.unfreezing.triggers import LossBelow, Plateau, Trigger, is_better

EPOCH = Duration(1, "ep")


def phases(schedule: UnfreezeSchedule) -> list[set[int]]:
    return [set(phase.layers) for phase in schedule.phases]


def run(plan: UnfreezePlan, steps: int) -> tuple[list[set[int]], UnfreezeState]:
    """The layers that train at each update, with time alone deciding."""
    state = UnfreezeState()
    trained = []
    for step in range(steps):
        plan.on_step(state, step)
        trained.append(set(plan.layers(state)))
    return trained, state


def test_top_down_adds_a_block_a_phase_from_the_head_to_the_embeddings() -> None:
    assert phases(UnfreezeSchedule.gradual(3)) == [{4}, {4, 3}, {4, 3, 2}, {4, 3, 2, 1}, {4, 3, 2, 1, 0}]


def test_bottom_up_adds_the_lowest_block_first_and_the_embeddings_last() -> None:
    assert phases(UnfreezeSchedule.gradual(3, order="bottom_up")) == [
        {4},
        {4, 1},
        {4, 1, 2},
        {4, 1, 2, 3},
        {4, 1, 2, 3, 0},
    ]


def test_all_at_once_probes_the_head_and_then_trains_everything() -> None:
    assert phases(UnfreezeSchedule.gradual(3, order="all_at_once")) == [{4}, {0, 1, 2, 3, 4}]


def test_one_at_a_time_trains_the_head_then_each_layer_alone_from_the_input_up_then_all() -> None:
    assert phases(UnfreezeSchedule.gradual(2, order="one_at_a_time")) == [{3}, {0}, {1}, {2}, {0, 1, 2, 3}]


@pytest.mark.parametrize("order", ["top_down", "bottom_up", "all_at_once", "one_at_a_time"])
def test_embeddings_that_never_join_are_in_no_phase(order: str) -> None:
    schedule = UnfreezeSchedule.gradual(3, order=order, embeddings="never")  # type: ignore[arg-type]
    assert phases(schedule)[-1] == {1, 2, 3, 4}
    assert not any(0 in layers for layers in phases(schedule))


def test_blocks_join_in_groups_and_the_last_group_may_be_smaller() -> None:
    assert phases(UnfreezeSchedule.gradual(5, blocks_per_phase=2, embeddings="never")) == [
        {6},
        {6, 5, 4},
        {6, 5, 4, 3, 2},
        {6, 5, 4, 3, 2, 1},
    ]


def test_phases_of_an_epoch_begin_at_the_borders_of_epochs() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, EPOCH), total_steps=40, steps_per_epoch=10)
    trained, state = run(plan, 40)
    assert state.starts == [0, 10, 20, 30] == plan.expected_starts()
    assert [trained[step] for step in (0, 9, 10, 19, 20, 30)] == [{3}, {3}, {3, 2}, {3, 2}, {3, 2, 1}, {3, 2, 1, 0}]


def test_without_a_length_the_phases_divide_the_run_evenly() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2), total_steps=40, steps_per_epoch=7)
    assert plan.expected_starts() == [0, 10, 20, 30]


def test_a_written_list_may_mix_units_and_leaves_never_frozen() -> None:
    schedule = UnfreezeSchedule.parse("head: 0ep, 10-12: 1ep, 7-9: 30%, 1-6: never, embeddings: never", 12)
    assert phases(schedule) == [{13}, {13, 12, 11, 10}, {13, 12, 11, 10, 9, 8, 7}]
    assert UnfreezePlan(schedule, total_steps=1000, steps_per_epoch=100).expected_starts() == [0, 100, 300]


def test_a_written_list_in_one_unit_is_put_in_the_order_of_time() -> None:
    schedule = UnfreezeSchedule.parse("embeddings: 300st, 1: 200st, 2: 0st, head: 0ep", 2)
    assert phases(schedule) == [{3, 2}, {3, 2, 1}, {3, 2, 1, 0}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head: 0ep", "does not say when these layers train: embeddings, 1, 2"),
        ("head: 0ep, 1-3: 1ep, embeddings: never", "'1-3: 1ep' must be layers and a time"),
        ("head: 0ep, 1-2: 1, embeddings: never", "'1-2: 1': the time must be a duration"),
        ("head: 0ep, 1-2: 1ep, 2: 2ep, embeddings: never", "'2: 2ep': layer 2 has a time already"),
        ("head, 1-2: 1ep, embeddings: never", "'head' must be layers and a time"),
        ("head: 1ep, 1-2: 2ep, embeddings: never", "the first phase must begin at 0st, got 1ep"),
        ("heads: 0ep, 1-2: 1ep, embeddings: never", "'heads: 0ep' must be layers and a time"),
    ],
)
def test_a_written_list_with_a_fault_is_refused_with_the_entry(text: str, message: str) -> None:
    with pytest.raises(UnfreezeError) as error:
        UnfreezeSchedule.parse(text, 2)
    assert message in str(error.value)


def test_a_phase_after_the_end_of_the_run_is_refused_with_its_layers() -> None:
    with pytest.raises(
        UnfreezeError, match=r"phase 4 \(head, blocks 1-2, embeddings\) would begin at step 30.*ends at step 30"
    ):
        UnfreezePlan(UnfreezeSchedule.gradual(2, EPOCH), total_steps=30, steps_per_epoch=10)


def test_phases_out_of_order_are_refused() -> None:
    schedule = UnfreezeSchedule.parse("head: 0ep, 2: 50%, 1: 1ep, embeddings: never", 2)
    with pytest.raises(UnfreezeError, match=r"phase 3 begins at step 10, not after the phase before \(50\)"):
        UnfreezePlan(schedule, total_steps=100, steps_per_epoch=10)


def test_a_run_too_short_for_its_phases_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnfreezeError) as error:
        UnfreezePlan(UnfreezeSchedule.gradual(2), total_steps=3, steps_per_epoch=3)
    assert str(error.value) == (
        "phase 2 (head, block 2) would begin at step 0 together with the phase before it: the run of 3 steps is too "
        "short for 4 phases; make it longer, or the phases fewer (blocks_per_phase)"
    )


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_first_score_that_is_nan_gives_way_to_any_number_and_nan_is_never_better(metric: str) -> None:
    numbers = [math.nan, 2.0, math.nan, 1.0, 3.0]
    best: float | None = None
    bests = [best := number if is_better(metric, number, best) else best for number in numbers]
    assert bests == [None, 2.0, 2.0, *([1.0, 1.0] if metric == "loss" else [2.0, 3.0])]
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, Plateau(metric, patience=2)), total_steps=100, steps_per_epoch=10)
    state = UnfreezeState()
    assert [plan.on_scores(state, i, {metric: number}) for i, number in enumerate([math.nan, 2.0, 2.0])] == [False] * 3
    assert plan.on_scores(state, 3, {metric: 2.0})


@pytest.mark.parametrize(
    ("trigger", "evaluate", "record", "message"),
    [
        (Plateau("loss"), None, 1, "takes 2 evaluation(s), but the run of 40 steps has 0 before its end"),
        (Plateau("loss", patience=3), 10, 1, "takes 4 evaluation(s), but the run of 40 steps has 3 before its end"),
        (LossBelow(1.0), 1, None, "takes 1 record(s) of the training loss, but the run of 40 steps has 0 before"),
        (LossBelow(1.0), 1, 40, "so that it would never begin; record more, or set at_most"),
        (Plateau("loss", patience=2), 10, None, None),
        (Plateau("loss", at_most=Duration(1, "ep")), None, None, None),
        (LossBelow(1.0), None, 39, None),
    ],
)
def test_a_phase_that_waits_for_what_never_comes_is_refused(
    trigger: Trigger, evaluate: int | None, record: int | None, message: str | None
) -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, trigger), total_steps=40, steps_per_epoch=10)
    how = {"evaluate": "evaluate more", "record": "record more"}
    if message is None:
        plan.require_signals(evaluate, record, how)
        return
    with pytest.raises(UnfreezeError, match=re.escape(message)):
        plan.require_signals(evaluate, record, how)


@pytest.mark.parametrize(("metric", "scores"), [("accuracy", [0.5, 0.6, 0.6, 0.59]), ("loss", [2.0, 1.5, 1.5, 1.6])])
def test_a_plateau_ends_a_phase_after_its_patience_and_the_next_phase_counts_anew(
    metric: str, scores: list[float]
) -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, Plateau(metric, patience=2)), total_steps=100, steps_per_epoch=10)
    state = UnfreezeState()
    begun = [plan.on_scores(state, 10 * (i + 1), {metric: score}) for i, score in enumerate([*scores, *scores])]
    assert begun == [False, False, False, True, False, False, False, True]
    assert state.starts == [0, 40, 80]
    assert plan.layers(state) == {3, 2, 1}


def test_a_plateau_waits_for_the_least_and_never_past_the_most_length_of_a_phase() -> None:
    trigger = Plateau("accuracy", patience=1, at_least=Duration(25, "st"), at_most=Duration(3, "ep"))
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, trigger), total_steps=100, steps_per_epoch=10)
    state = UnfreezeState()
    assert [plan.on_scores(state, step, {"accuracy": 0.5}) for step in (10, 20, 30)] == [False, False, True]
    assert [plan.on_step(state, step) for step in (59, 60)] == [False, True]
    assert state.starts == [0, 30, 60]


def test_a_training_loss_below_its_value_ends_a_phase() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, LossBelow(0.5)), total_steps=100, steps_per_epoch=10)
    state = UnfreezeState()
    assert [plan.on_loss(state, step, loss) for step, loss in ((10, 0.9), (20, 0.5), (30, 0.4))] == [False, False, True]
    assert state.starts == [0, 30]


@pytest.mark.parametrize(
    "trigger", [Plateau("loss", at_most=Duration(40, "st")), LossBelow(9.0, at_most=Duration(40, "st"))]
)
def test_no_phase_begins_when_the_last_update_is_done(trigger: Trigger) -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, trigger, restart_lr=True), total_steps=40, steps_per_epoch=10)
    state = UnfreezeState(best=1.0)
    assert not plan.on_scores(state, 40, {"loss": 1.0})
    assert not plan.on_loss(state, 40, 1.0)
    # A run that was stopped here asks once more when it is resumed, as if for update 40.
    assert not plan.on_step(state, 40)
    assert (state.starts, plan.lr_span(state)) == ([0], (0, 40))


def test_a_metric_that_the_scores_lack_is_named() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, Plateau("f1")), total_steps=100, steps_per_epoch=10)
    with pytest.raises(UnfreezeError, match="no metric 'f1' to wait for; there are accuracy, loss"):
        plan.on_scores(UnfreezeState(), 10, {"accuracy": 0.5, "loss": 1.0})


def test_a_state_that_went_through_json_goes_on_as_before() -> None:
    plan = UnfreezePlan(
        UnfreezeSchedule.gradual(3, Plateau("accuracy", patience=2)), total_steps=100, steps_per_epoch=10
    )
    unbroken, resumed = UnfreezeState(), UnfreezeState()
    for step, score in zip(range(10, 100, 10), [0.5, 0.4, 0.6, 0.6, 0.5, 0.7, 0.7, 0.7, 0.7]):
        for state in (unbroken, resumed):
            plan.on_scores(state, step, {"accuracy": score})
        resumed = UnfreezeState(**json.loads(json.dumps(asdict(resumed))))
    assert resumed == unbroken
    assert unbroken.starts == [0, 50, 80]


def test_an_unfrozen_layer_warms_up_and_those_that_trained_before_do_not() -> None:
    schedule = UnfreezeSchedule.gradual(2, EPOCH, layer_warmup=Duration(4, "st"))
    plan = UnfreezePlan(schedule, total_steps=40, steps_per_epoch=10)
    state = UnfreezeState()
    factors: dict[int, list[float]] = {2: [], 3: []}
    for step in range(16):
        plan.on_step(state, step)
        for layer, values in factors.items():
            values.append(plan.lr_scale(state, step, layer))
    assert factors[3] == [1.0] * 16
    assert factors[2] == [0.0] * 10 + [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


def test_a_layer_that_trains_again_after_a_break_warms_up_again() -> None:
    schedule = UnfreezeSchedule.gradual(1, EPOCH, order="one_at_a_time", layer_warmup=Duration(1, "st"))
    plan = UnfreezePlan(schedule, total_steps=40, steps_per_epoch=10)
    _, state = run(plan, 40)
    assert state.starts == [0, 10, 20, 30]
    assert [plan.unfrozen_at(state, layer) for layer in (2, 1, 0)] == [30, 20, 30]


def test_a_phase_scales_all_rates() -> None:
    head, everything = frozenset({2}), frozenset({0, 1, 2})
    schedule = UnfreezeSchedule((Phase(head), Phase(everything, EPOCH, lr_scale=0.5)), num_layers=1)
    plan = UnfreezePlan(schedule, total_steps=20, steps_per_epoch=10)
    state = UnfreezeState()
    assert plan.lr_scale(state, 0, 2) == 1.0
    plan.on_step(state, 10)
    assert [plan.lr_scale(state, 10, layer) for layer in (2, 1, 0)] == [0.5, 0.5, 0.5]


def test_the_rates_run_over_the_whole_run_or_anew_over_each_phase() -> None:
    spans = []
    for restart in (False, True):
        schedule = UnfreezeSchedule.gradual(2, Duration(30, "%"), restart_lr=restart)
        plan = UnfreezePlan(schedule, total_steps=100, steps_per_epoch=10)
        spans.append([plan.lr_span(UnfreezeState(starts)) for starts in ([0], [0, 30], [0, 30, 60, 90])])
    assert spans == [[(0, 100)] * 3, [(0, 30), (30, 30), (90, 10)]]


@pytest.mark.parametrize("layers", [set(), {4}, {-1}])
def test_a_phase_without_layers_or_with_one_that_does_not_exist_is_refused(layers: set[int]) -> None:
    with pytest.raises(UnfreezeError, match=r"at least one layer|does not exist"):
        UnfreezeSchedule((Phase(frozenset(layers)),), num_layers=2)


def test_the_table_and_timeline_of_a_plan_read_as_printed() -> None:
    schedule = UnfreezeSchedule.gradual(2, Duration(10, "st"), embeddings="never")
    plan = UnfreezePlan(schedule, total_steps=30, steps_per_epoch=10)
    sizes, rates = {0: 600, 1: 150, 2: 150, 3: 100}, {0: 1e-5, 1: 2e-5, 2: 4e-5, 3: 1e-3}
    assert phase_table(plan, sizes, rates).splitlines() == [
        "phase  step  layers that train                lr  size  share",
        "-----  ----  -----------------  ----------------  ----  -----",
        "    1     0  head                         1.0e-3   100  10.0%",
        "    2    10  head, block 2      4.0e-5 to 1.0e-3   250  25.0%",
        "    3    20  head, blocks 1-2   2.0e-5 to 1.0e-3   400  40.0%",
        "",
        "      head  " + "#" * 60,
        "   block 2  " + "." * 20 + "#" * 40,
        "   block 1  " + "." * 40 + "#" * 20,
        "embeddings  " + "." * 60,
        "            steps 0 to 30",
    ]


def test_a_timeline_whose_phases_a_condition_begins_says_that_it_is_not_to_scale() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(1, Plateau()), total_steps=30, steps_per_epoch=10)
    timeline = phase_table(plan, dict.fromkeys(range(3), 1), dict.fromkeys(range(3), 0.1)).splitlines()
    assert timeline[-1].strip() == "not to scale: conditions decide when phases begin"
    assert timeline[3].split()[:3] == ["2", "waits", "head,"]
    assert timeline[5] == "phase 2, 3 waits for: loss on a plateau for 1 evaluation(s)"


@pytest.mark.slow
def test_under_fsdp2_two_processes_take_the_steps_of_one_in_every_phase() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run([*launcher, "-m", "tests.layerwise.fsdp"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    differences = json.loads(result.stdout)
    assert len(differences) == 12
    assert max(differences) < 1e-5


@pytest.mark.parametrize("layers", ["1-100000000000", "²", "2-1", "0", "1-", "-2", "1" * 5000, "\u0661"])
def test_layers_that_the_model_does_not_have_are_refused_at_once(layers: str) -> None:
    with pytest.raises(UnfreezeError, match=r"must be layers and a time, such as head: 0ep"):
        UnfreezeSchedule.parse(f"head: 0ep, {layers}: 1ep, embeddings: never", num_layers=2)


@pytest.mark.parametrize(
    ("at_least", "at_most"), [("2ep", "1ep"), ("1ep", "5st"), ("50%", "1ep"), ("0st", "0st"), ("0st", "0.1%")]
)
def test_a_phase_whose_at_least_is_above_its_at_most_is_refused(at_least: str, at_most: str) -> None:
    trigger = Plateau(at_least=Duration.parse(at_least), at_most=Duration.parse(at_most))
    with pytest.raises(UnfreezeError, match=rf"^phase 2 begins at most {at_most} .*make at_most longer$"):
        UnfreezePlan(UnfreezeSchedule.gradual(2, trigger), total_steps=100, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": "1ep", "plateau": {}}, "every and plateau cannot both end a phase; give one"),
        ({"plateau": {}, "loss_below": {"value": 1.0}}, "plateau and loss_below cannot both end a phase; give one"),
        ({"layers": "head: 0st, 1-3: 1ep, embeddings: never", "every": "1ep"}, "so every has no place beside it"),
        ({"evry": "1ep"}, "'evry' is not a setting of unfreeze; there are blocks_per_phase, embeddings, every"),
    ],
)
def test_settings_that_exclude_each_other_or_do_not_exist_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UnfreezeError, match=re.escape(message)):
        UnfreezeSchedule.from_settings(3, unfreeze=settings)


@pytest.mark.parametrize("trigger", [Plateau(at_least=Duration(40, "st")), LossBelow(1.0, Duration(4, "ep"))])
def test_a_phase_that_is_to_last_as_long_as_the_run_is_refused(trigger: Trigger) -> None:
    schedule = UnfreezeSchedule.gradual(2, trigger)
    message = rf"^phase 2 would never begin: .* at least {trigger.at_least} \(40 steps\), and the run ends at step 40"  # type: ignore[union-attr]
    with pytest.raises(UnfreezeError, match=message):
        UnfreezePlan(schedule, total_steps=40, steps_per_epoch=10)
    assert UnfreezePlan(schedule, total_steps=41, steps_per_epoch=10).expected_starts() == [0, None, None, None]


def test_a_plan_knows_which_layers_have_not_trained_yet() -> None:
    plan = UnfreezePlan(UnfreezeSchedule.gradual(2, Plateau(), embeddings="never"), total_steps=40, steps_per_epoch=10)
    assert [plan.never_trained(UnfreezeState([0] * phases)) for phases in (1, 2, 3)] == [{1, 2}, {1}, set()]
    chain = UnfreezePlan(UnfreezeSchedule.gradual(2, order="one_at_a_time"), total_steps=40, steps_per_epoch=10)
    assert chain.never_trained(UnfreezeState([0, 8, 16])) == {2}


def test_evaluations_before_their_first_step_are_none_to_wait_for() -> None:
    plateau = Plateau(patience=2)
    plan = UnfreezePlan(UnfreezeSchedule.gradual(1, plateau, order="all_at_once"), total_steps=10, steps_per_epoch=10)
    plan.require_signals(2, None, {"evaluate": "do so"}, evaluate_from=4)
    with pytest.raises(UnfreezeError, match=r"takes 3 evaluation\(s\), but the run of 10 steps has 2 before its end"):
        plan.require_signals(2, None, {"evaluate": "do so"}, evaluate_from=5)


def test_a_plan_names_the_metric_that_the_next_phase_waits_for() -> None:
    phases = (
        Phase(frozenset({3})),
        Phase(frozenset({2, 3}), Plateau("f1")),
        Phase(frozenset({1, 2, 3}), Duration(5, "ep")),
    )
    plan = UnfreezePlan(UnfreezeSchedule(phases, 2), total_steps=100, steps_per_epoch=10)
    assert [plan.awaited_metric(UnfreezeState(begun)) for begun in ([0], [0, 7], [0, 7, 50])] == ["f1", None, None]
