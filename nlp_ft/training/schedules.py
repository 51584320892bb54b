"""Converts the strategy and the schedule of a recipe into the core's phases and learning rates over a run's steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.layerwise import (
    LossBelow,
    LrSchedule,
    Plateau,
    UnfreezePlan,
    UnfreezeSchedule,
    build_lr_schedule,
)
from nlp_ft.recipe.sections import ScheduleSection
from nlp_ft.recipe.strategy import REPLACED_BY_LAYERS, StrategySection, UnfreezeSection
from nlp_ft.training.loop import STEPS_BETWEEN_RECORDS
from nlp_ft.training.loop_state import LoopSettings


def unfreeze_schedule(strategy: StrategySection, num_layers: int) -> UnfreezeSchedule:
    """Convert the strategy into a schedule of which layers train when, in a model of `num_layers` blocks.

    Raises:
        TrainingError: the strategy asks for more blocks than there are, for layers that do not exist, or for blocks of
            random weights that never train.
    """
    given = None if strategy.unfreeze is None else unfreeze_settings(strategy.unfreeze)
    if strategy.reinit_top > num_layers:
        raise TrainingError(
            f"strategy.reinit_top must be at most {num_layers}, the blocks of this model, got {strategy.reinit_top}"
        )
    with _naming("strategy.unfreeze: " if given is not None else "strategy."):
        schedule = UnfreezeSchedule.from_settings(num_layers, strategy.trainable_blocks, given)
    renewed = set(range(num_layers - strategy.reinit_top + 1, num_layers + 1))
    if frozen := renewed.difference(*(phase.layers for phase in schedule.phases)):
        raise TrainingError(
            f"strategy.reinit_top {strategy.reinit_top} gives random weights to block(s) "
            f"{', '.join(map(str, sorted(frozen)))}, which never train under this strategy; lower it, or train them"
        )
    return schedule


def unfreeze_settings(section: UnfreezeSection) -> dict[str, Any]:
    """Convert the section into settings of `UnfreezeSchedule.from_settings`, defaults included."""
    given = {name: value for name, value in section if value is not None and name != "restore_best"}
    for name, trigger in (("plateau", Plateau), ("loss_below", LossBelow)):
        if name in given:
            given[name] = trigger(**{key: value for key, value in given[name] if value is not None})
    replaced = REPLACED_BY_LAYERS if "layers" in given else ()
    return {name: value for name, value in given.items() if name not in replaced}


def unfreeze_plan(schedule: UnfreezeSchedule, settings: LoopSettings) -> UnfreezePlan:
    """Lay the schedule over the run. Raises: TrainingError: a phase begins after the run ends, or would never begin."""
    records = min(STEPS_BETWEEN_RECORDS, settings.evaluate_every, settings.checkpoint_every)
    how = {
        "evaluate": "make training.evaluate_every shorter or the run longer",
        "record": "make the run longer than 10 steps",
    }
    with _naming("strategy.unfreeze: "):
        plan = UnfreezePlan(schedule, settings.total_steps, settings.steps_per_epoch)
        plan.require_signals(settings.evaluate_every, records, how)
    return plan


def lr_schedule(section: ScheduleSection, settings: LoopSettings) -> Callable[[int], LrSchedule]:
    """Make the function from a number of steps (of the run or of a phase) to the factor on the rates at each step.

    Raises:
        TrainingError: the warm-up is longer than the run.
    """
    warmup = section.warmup.steps(settings.steps_per_epoch, settings.total_steps)
    if warmup > settings.total_steps:
        raise TrainingError(
            f"schedule.warmup must last 0 to {settings.total_steps} steps (the whole run), got {warmup} "
            f"({section.warmup})"
        )

    def over(steps: int) -> LrSchedule:
        warmup = section.warmup.steps(settings.steps_per_epoch, steps)
        return build_lr_schedule(section.name, steps, min(warmup, steps), section.ratio)

    return over


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Name the place in the recipe of what the core refuses. Raises: TrainingError."""
    try:
        yield
    except UnfreezeError as error:
        raise TrainingError(f"{place}{error}") from None
