"""Gradual unfreezing in one call: the same plan, layer for layer and step for step, as the parts it is made of."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from nlp_ft.durations import Duration
from nlp_ft.errors import UnfreezeError
from nlp_ft.layerwise import (
    LayerMap,
    Plateau,
    UnfreezePlan,
    Unfreezer,
    UnfreezeSchedule,
    UnfreezeState,
    build_optimizer,
)

TOTAL_STEPS = 40
STEPS_PER_EPOCH = 10
RULES = [("^0", 0), ("^1", 1), ("^2", 2), ("^3", 3), ("^4", "head")]


def make_model() -> nn.Module:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))


def trainable_at_each_step(unfreezer: Unfreezer, model: nn.Module) -> list[list[str]]:
    found = []
    for step in range(TOTAL_STEPS):
        unfreezer.begin_step(step)
        found.append([name for name, parameter in model.named_parameters() if parameter.requires_grad])
    return found


def in_one_call(**options: Any) -> tuple[Unfreezer, list[list[str]]]:
    model = make_model()
    layer_map = LayerMap.from_model(model, rules=RULES)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, layer_map=layer_map)
    unfreezer = Unfreezer.gradual(model, optimizer, TOTAL_STEPS, layer_map=layer_map, **options)
    return unfreezer, trainable_at_each_step(unfreezer, model)


def in_parts(every: Duration | Plateau | None = None, **options: Any) -> tuple[Unfreezer, list[list[str]]]:
    model = make_model()
    layer_map = LayerMap.from_model(model, rules=RULES)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, layer_map=layer_map)
    plan = UnfreezePlan(UnfreezeSchedule.gradual(3, every, **options), TOTAL_STEPS, STEPS_PER_EPOCH)
    unfreezer = Unfreezer(model, optimizer, plan, layer_map)
    return unfreezer, trainable_at_each_step(unfreezer, model)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({}, {}),
        ({"every": "5st"}, {"every": Duration(5, "st")}),
        ({"every": "0.5ep", "steps_per_epoch": STEPS_PER_EPOCH}, {"every": Duration(0.5, "ep")}),
        (
            {"every": Duration(10, "%"), "blocks_per_phase": 2, "order": "bottom_up", "embeddings": "never"},
            {"every": Duration(10, "%"), "blocks_per_phase": 2, "order": "bottom_up", "embeddings": "never"},
        ),
        ({"every": Plateau(at_most=Duration(4, "st"))}, {"every": Plateau(at_most=Duration(4, "st"))}),
    ],
)
def test_one_call_trains_the_same_layers_at_each_step_as_the_long_form(
    short: dict[str, Any], long: dict[str, Any]
) -> None:
    (unfreezer, trained), (reference, expected) = in_one_call(**short), in_parts(**long)
    assert unfreezer.plan.schedule == reference.plan.schedule
    assert unfreezer.plan.expected_starts() == reference.plan.expected_starts()
    assert unfreezer.state == reference.state
    assert trained == expected
    assert trained[0] == ["4.weight", "4.bias"]


def test_one_call_keeps_what_never_trains_frozen_and_goes_on_from_a_state() -> None:
    _, trained = in_one_call(never=["3.bias"], state=UnfreezeState([0, 0]))
    assert trained[0] == ["3.weight", "4.weight", "4.bias"]


@pytest.mark.parametrize("every", ["1ep", Plateau(at_least=Duration(1, "ep")), Plateau(at_most=Duration(1, "ep"))])
def test_epochs_of_unknown_length_are_refused(every: Any) -> None:
    with pytest.raises(UnfreezeError, match=re.escape(f"every={every} counts epochs, whose length is not known; pass")):
        in_one_call(every=every)


def test_a_gradual_unfreezer_of_a_real_encoder_needs_no_number_of_blocks(tiny_encoder: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder)
    optimizer = torch.optim.AdamW(model.parameters())
    unfreezer = Unfreezer.gradual(model, optimizer, TOTAL_STEPS)
    assert unfreezer.plan.schedule == UnfreezeSchedule.gradual(model.config.num_hidden_layers)
