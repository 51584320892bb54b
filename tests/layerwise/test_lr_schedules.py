"""Schedules against those of transformers and against the published closed form of the slanted triangle."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from nlp_ft.errors import TrainingError
from nlp_ft.layerwise import build_lr_schedule, set_learning_rates
from nlp_ft.layerwise.lr_schedules import ScheduleName


def constant(optimizer: torch.optim.Optimizer, warmup: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    return get_constant_schedule_with_warmup(optimizer, warmup)


@pytest.mark.parametrize("warmup", [0, 1, 5, 49, 50])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
        ("constant", constant),
    ],
)
def test_every_update_of_a_run_has_the_rate_that_transformers_gives_it(
    name: ScheduleName, reference: Callable[..., Any], warmup: int
) -> None:
    theirs = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = reference(theirs, warmup, 50)
    factor = build_lr_schedule(name, total_steps=50, warmup_steps=warmup)
    for step in range(50):
        assert factor(step) == pytest.approx(scheduler.get_last_lr()[0], rel=0, abs=1e-12), step
        theirs.step()
        scheduler.step()


@pytest.mark.parametrize(("name", "end"), [("linear", 0.0), ("cosine", 0.0), ("constant", 1.0)])
def test_the_factor_at_the_end_of_a_run_stays_after_it(name: ScheduleName, end: float) -> None:
    factor = build_lr_schedule(name, total_steps=50, warmup_steps=5)
    assert [factor(step) for step in (50, 51, 75, 500)] == pytest.approx([end] * 4, rel=0, abs=1e-12)


def slanted_by_the_paper(step: int, total: int, cut_ratio: float, ratio: float) -> float:
    """Howard and Ruder 2018, equation 3."""
    cut = math.floor(total * cut_ratio)
    p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / cut_ratio - 1))
    return (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize(("total", "cut_ratio", "ratio"), [(100, 0.1, 32.0), (1000, 0.1, 32.0), (60, 0.25, 10.0)])
def test_the_slanted_triangle_is_that_of_the_paper(total: int, cut_ratio: float, ratio: float) -> None:
    factor = build_lr_schedule("slanted_triangular", total, int(total * cut_ratio), ratio)
    steps = range(total + 1)
    expected = [slanted_by_the_paper(step, total, cut_ratio, ratio) for step in steps]
    assert [factor(step) for step in steps] == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.03125), (5, 0.515625), (10, 1.0), (55, 0.515625), (100, 0.03125), (200, 0.03125)]
)
def test_the_slanted_triangle_has_the_literal_values_and_comes_down_to_one_over_the_ratio(
    step: int, expected: float
) -> None:
    assert build_lr_schedule("slanted_triangular", 100, 10)(step) == expected


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0, [1.0, 0.8125, 0.625, 0.4375, 0.25]),
        (4, [0.25, 0.4375, 0.625, 0.8125, 1.0]),
        (2, [0.25, 0.625, 1.0, 0.625, 0.25]),
    ],
)
def test_a_slanted_triangle_without_a_rise_or_without_a_fall_is_a_line(warmup: int, expected: list[float]) -> None:
    factor = build_lr_schedule("slanted_triangular", 4, warmup, ratio=4.0)
    assert [factor(step) for step in range(5)] == expected


def test_each_group_gets_its_own_initial_rate_times_the_factor() -> None:
    groups = [
        {"params": [nn.Parameter(torch.ones(1))], "lr": 0.5, "initial_lr": 0.5},
        {"params": [nn.Parameter(torch.ones(1))], "lr": 0.125, "initial_lr": 0.125},
    ]
    optimizer = torch.optim.SGD(groups)
    for factor, expected in ((0.5, [0.25, 0.0625]), (0.0, [0.0, 0.0]), (1.0, [0.5, 0.125])):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == expected


@pytest.mark.parametrize("warmup", [-1, 11])
def test_a_warm_up_that_does_not_fit_into_the_run_is_refused(warmup: int) -> None:
    with pytest.raises(TrainingError, match=rf"^warm-up must last 0 to 10 steps \(the whole run\), got {warmup}$"):
        build_lr_schedule("linear", 10, warmup)


@pytest.mark.parametrize("total", [0, -3])
def test_a_run_without_steps_is_refused_with_the_setting_that_is_wrong(total: int) -> None:
    with pytest.raises(TrainingError, match=rf"total_steps must be at least 1, got {total}"):
        build_lr_schedule("linear", total)


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TrainingError, match=r"one of linear, cosine, constant, slanted_triangular, got 'poly'$"):
        build_lr_schedule("poly", 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [0.0, -4.0, float("nan")])
def test_a_ratio_that_gives_no_triangle_is_refused(ratio: float) -> None:
    with pytest.raises(TrainingError, match=f"ratio must be .*got {ratio}"):
        build_lr_schedule("slanted_triangular", 10, 1, ratio)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((10, 0.1), "warmup_steps must be a whole number of steps, got 0.1"),
        (("10",), "total_steps must be .*, got '10'"),
    ],
)
def test_steps_are_whole_numbers_and_no_shares(steps: Any, told: str) -> None:
    with pytest.raises(TrainingError, match=f"^{told}$"):
        build_lr_schedule("linear", *steps)
