"""Learning-rate schedules as functions of the step. They have no state, so a resumed run has nothing to restore.

A schedule returns a factor, by which the `initial_lr` of every group is multiplied. The ratios between the rates of the
layers therefore stay the same.
"""

import math
from collections.abc import Callable
from numbers import Integral

import torch

from nlp_ft.defaults import ScheduleName as ScheduleName
from nlp_ft.errors import TrainingError

LrSchedule = Callable[[int], float]
"""global_step (the number of updates made so far, from 0) -> factor in [0, 1]."""


def build_lr_schedule(name: ScheduleName, total_steps: int, warmup_steps: int = 0, ratio: float = 32.0) -> LrSchedule:
    """Make the learning-rate schedule of a run.

    Args:
        name: `linear`, `cosine` (half a period) and `constant` follow a linear warm-up from 0;
            `slanted_triangular` rises from 1/ratio to 1 over the warm-up and falls back to 1/ratio
            (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146; there the warm-up is 10 % of the run).
        total_steps: optimizer steps of the whole run, at least 1.
        warmup_steps: optimizer steps of the warm-up, 0 to `total_steps`.
        ratio: highest rate of the slanted triangle divided by its lowest, above 1.

    Returns:
        A function that maps `global_step` to a factor in [0, 1].

    Raises:
        TrainingError: the name is unknown, or a number is out of range.
    """
    for what, value in (("total_steps", total_steps), ("warmup_steps", warmup_steps)):
        if not isinstance(value, Integral):
            raise TrainingError(f"{what} must be a whole number of steps, got {value!r}")
    if total_steps < 1:
        raise TrainingError(f"total_steps must be at least 1, got {total_steps}")
    if not 1 < ratio < math.inf:
        raise TrainingError(f"ratio must be above 1, got {ratio}")
    if not 0 <= warmup_steps <= total_steps:
        raise TrainingError(f"warm-up must last 0 to {total_steps} steps (the whole run), got {warmup_steps}")
    if name == "slanted_triangular":
        return lambda step: slanted_triangular(step, total_steps, warmup_steps, ratio)
    decays: dict[str, Callable[[float], float]] = {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda progress: 1.0,
    }
    if name not in decays:
        raise TrainingError(f"schedule must be one of {', '.join([*decays, 'slanted_triangular'])}, got {name!r}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return max(0.0, decays[name](min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))))

    return factor


def slanted_triangular(step: int, total_steps: int, warmup_steps: int, ratio: float) -> float:
    """Compute the factor of the slanted triangle: 1/ratio at both ends, 1 at the end of the warm-up.

    Args:
        step: number of updates made so far, from 0.
        total_steps: optimizer steps of the whole run.
        warmup_steps: optimizer steps of the warm-up.
        ratio: highest rate divided by lowest, above 1.
    """
    if step < warmup_steps:
        height = step / warmup_steps
    else:
        height = 1.0 - (min(step, total_steps) - warmup_steps) / max(1, total_steps - warmup_steps)
    return (1.0 + height * (ratio - 1.0)) / ratio


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its `initial_lr` times the factor.

    Raises:
        TrainingError: a group has no `initial_lr`, which `build_optimizer` gives it.
    """
    if any("initial_lr" not in group for group in optimizer.param_groups):
        raise TrainingError("the groups of this optimizer have no initial_lr; make it with build_optimizer")
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rates_by_name(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rate of each layer by its name, from the head down; 0 while the layer is frozen."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        trains = any(parameter.requires_grad for parameter in group["params"])
        name = group["name"].removesuffix(", no_weight_decay")
        rates[name] = max(rates.get(name, 0.0), float(group["lr"]) if trains else 0.0)
    return rates
