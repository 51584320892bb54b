"""Planted faults of rates and schedulers: each is found by its own finding."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR

from nlp_ft.layerwise import LayerMap, audit, build_optimizer, layerwise_param_groups
from tests.layerwise.auditing import NO_DROPOUT, bert, found, names, the_only
from tests.layerwise.families import build


def test_layers_that_learn_faster_than_those_above_them() -> None:
    model = bert()
    groups = layerwise_param_groups(model, layer_decay=0.5)
    for group in groups:
        group["lr"] = group["initial_lr"] = 1e-5 if group["layer_id"] == 2 else 1e-4
        del group["lr_scale"]
    report = audit(model, AdamW(groups))
    assert the_only(report, "rates_out_of_order", "warning") == names(
        model, "bert.embeddings.", "bert.encoder.layer.0."
    )
    assert "block 1 faster than block 2; embeddings faster than block 2" in report.findings[0].what


def test_the_order_of_the_rates_is_that_of_the_run_and_not_of_the_moment() -> None:
    model = bert()
    optimizer = build_optimizer(model)
    scheduler = LambdaLR(optimizer, lambda step: step / 10)
    assert {group["lr"] for group in optimizer.param_groups} == {0.0}
    assert found(audit(model, optimizer, scheduler)) == []
    for group in optimizer.param_groups:
        group["initial_lr"] = 1.0 / (1 + group["layer_id"])
        del group["lr_scale"]
    assert found(audit(model, optimizer, scheduler)) == ["rates_out_of_order"]


def test_layer_decay_over_the_one_block_of_albert() -> None:
    model = build("albert", num_layers=4, classifier_dropout_prob=0.0, **NO_DROPOUT)
    shared = the_only(audit(model, build_optimizer(model)), "shared_block_decayed", "warning")
    assert shared == names(model, "albert.encoder.albert_layer_groups.")


def two_towers(**rates: float) -> tuple[nn.Module, SGD, LayerMap]:
    """Text and image of two blocks below the head they share, of image the upper one; that of text is a shared one."""
    places = {"text_1": 1, "text_2": 2, "image_2": 2, "head": 3}
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in places})
    layer_map = LayerMap(
        {f"{name}.weight": layer for name, layer in places.items()},
        2,
        stacks={"text": 2, "image": 2},
        stack_of={f"{name}.weight": name.partition("_")[0] for name in places} | {"head.weight": "text"},
        shared_layers={2},
    )
    return model, SGD([{"params": [model[name].weight], "lr": rates[name]} for name in places]), layer_map


def test_the_rates_of_two_towers_do_not_meet() -> None:
    model, optimizer, layer_map = two_towers(text_1=0.1, text_2=0.1, image_2=0.01, head=0.1)
    report = audit(model, optimizer, layer_map=layer_map)
    assert the_only(report, "shared_block_decayed", "warning") == ("text_2.weight",)
    model, optimizer, layer_map = two_towers(text_1=0.01, text_2=0.01, image_2=0.01, head=0.001)
    report = audit(model, optimizer, layer_map=layer_map)
    assert set(the_only(report, "rates_out_of_order", "warning")) == {
        "text_1.weight",
        "text_2.weight",
        "image_2.weight",
    }


class Loop(nn.Module):
    """One block that runs three times, as in a universal transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))] * 3)
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.stem(values)
        for block in self.blocks:
            values = block(values)
        return self.head(values)


def test_layer_decay_over_a_block_that_runs_three_times() -> None:
    model = Loop()
    layer_map = LayerMap.from_model(model, example=torch.ones(1, 4))
    optimizer = build_optimizer(model, layer_map=layer_map)
    report = audit(model, optimizer, layer_map=layer_map)
    assert the_only(report, "shared_block_decayed", "warning") == names(model, "blocks.")
    one_rate = build_optimizer(model, layer_map=layer_map, layer_decay=1.0, head_lr=1e-3)
    assert found(audit(model, one_rate, layer_map=layer_map)) == []


def timm_vit() -> nn.Module:
    return timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2)


def test_the_scales_of_timm_under_a_scheduler_of_torch() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    assert set(the_only(audit(model, optimizer, scheduler), "lr_scale_unread")) == set(names(model, ""))
    assert the_only(audit(model, optimizer), "lr_scale_unread", "warning")


def test_the_scales_of_timm_under_its_own_scheduler_are_read() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    assert found(audit(model, optimizer, CosineLRScheduler(optimizer, t_initial=10))) == []


def test_the_scales_of_timm_that_the_loop_multiplies_in_are_read() -> None:
    model = timm_vit()
    optimizer = AdamW(param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75), lr=1e-3)
    for group in optimizer.param_groups:
        group["initial_lr"], group["lr"] = 1e-3, 1e-3 * group["lr_scale"]
    assert found(audit(model, optimizer)) == []


def late_head(model: Any) -> tuple[Optimizer, Callable[[], None]]:
    optimizer = SGD(model.bert.parameters(), lr=0.1)
    return optimizer, lambda: optimizer.add_param_group({"params": list(model.classifier.parameters()), "lr": 0.7})


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: LambdaLR(optimizer, lambda step: 1.0),
        lambda optimizer: SequentialLR(optimizer, [LinearLR(optimizer), LambdaLR(optimizer, lambda step: 1.0)], [5]),
        lambda optimizer: ReduceLROnPlateau(optimizer, min_lr=[1e-6]),
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=10),
        lambda optimizer: CosineLRScheduler(optimizer, t_initial=10),
    ],
)
def test_a_group_added_after_the_scheduler_was_made(make: Callable[[Optimizer], Any]) -> None:
    model = bert()
    optimizer, add = late_head(model)
    scheduler = make(optimizer)
    add()
    report = audit(model, optimizer, scheduler)
    assert the_only(report, "group_without_schedule") == ("classifier.weight", "classifier.bias")
    assert "0.7" in report.findings[0].effect


def test_a_scheduler_that_reaches_late_groups_is_sound() -> None:
    model = bert()
    optimizer, add = late_head(model)
    step, plateau = StepLR(optimizer, step_size=1, gamma=0.5), ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    add()
    assert found(audit(model, optimizer, step)) == found(audit(model, optimizer, plateau)) == []
    optimizer.step()
    step.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.35]
    for _ in range(2):
        plateau.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.175]


def test_a_scheduler_of_an_optimizer_that_was_made_anew() -> None:
    model = bert()
    scheduler = LambdaLR(build_optimizer(model), lambda step: 1.0)
    assert the_only(audit(model, build_optimizer(model), scheduler), "scheduler_of_another_optimizer")
