"""From the sections of a recipe to the objects of the loop."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, set_seed

from nlp_ft.data.batch_loading import EpochStream
from nlp_ft.data.batch_sampling import EffectiveBatches, RowBatches, TokenBatches
from nlp_ft.environment import check_environment, is_on, launching, num_launched, show_what_cannot_be_shown
from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.layerwise import (
    LayerMap,
    LossBelow,
    LrSchedule,
    Plateau,
    UnfreezePlan,
    UnfreezeSchedule,
    build_lr_schedule,
    build_optimizer,
)
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.sections import OptimizerSection, ScheduleSection
from nlp_ft.recipe.strategy import REPLACED_BY_LAYERS, StrategySection, UnfreezeSection
from nlp_ft.tasks.task import Task
from nlp_ft.training.cpu_memory import keep_freed_memory
from nlp_ft.training.loop import STEPS_BETWEEN_RECORDS, LoopSettings
from nlp_ft.training.precision import mixed_precision


def start_accelerator(recipe: Recipe, tracking_folder: Path) -> Accelerator:
    """The accelerator of a run; random numbers are seeded and kernels made deterministic where asked.

    Raises:
        MachineError: the environment cannot be taken.
        TrainingError: the precision cannot be had here, or a tracker's package is missing.
    """
    check_environment()
    show_what_cannot_be_shown()
    check_trackers(recipe)
    check_distribution()
    # Told of no CPU, Accelerate (1.15) takes each of several CPU processes for the only one.
    cpu = is_on("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    launched = num_launched()
    with launching():
        device = PartialState(cpu=cpu).device
    precision = mixed_precision(recipe.training.precision, device)
    if recipe.training.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    if device.type == "cpu":
        keep_freed_memory()
    # A second run in one process may use another precision; the state would refuse it.
    AcceleratorState._reset_state()
    with launching():
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=precision,
            log_with=list(recipe.trackers) or None,
            project_dir=tracking_folder if recipe.trackers else None,
            # The loop accumulates by itself; a number from `accelerate config` would divide the loss once more.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    if accelerator.num_processes != launched:
        raise TrainingError(f"{launched} processes were launched, but each would train alone; is the launcher set up?")
    set_seed(recipe.seed)
    return accelerator


def check_distribution() -> None:
    """Raises: TrainingError: the launcher asks for a way of sharing work that a run cannot take."""
    reasons = {
        "DEEPSPEED": "its engine divides the optimizer among the processes once, and would never update the layers "
        "that begin to train later",
        "FSDP": "a run writes whole weights and checkpoints, and under FSDP each process holds a part; in a loop of "
        "your own nlp_ft.layerwise works with FSDP2",
        "MEGATRON_LM": "it brings models of its own",
    }
    for name, reason in reasons.items():
        if is_on(f"ACCELERATE_USE_{name}"):
            raise TrainingError(
                f"this launch asks for {name}, which a run does not take: {reason}. Launch with "
                "`accelerate launch --multi_gpu`, or --config_file of a configuration without it"
            )


def check_trackers(recipe: Recipe) -> None:
    """Raises: TrainingError: a tracker's package is missing."""
    for tracker in recipe.trackers:
        if find_spec(tracker) is None:
            raise TrainingError(f"trackers: {tracker} is not installed; try: pip install {tracker}")


def make_unfreeze_schedule(strategy: StrategySection, num_layers: int) -> UnfreezeSchedule:
    """Which layers train when.

    Raises:
        TrainingError: the strategy asks for more blocks than there are, or for layers that do not exist.
    """
    given = None if strategy.unfreeze is None else unfreeze_settings(strategy.unfreeze)
    if strategy.reinit_top > num_layers:
        raise TrainingError(
            f"strategy.reinit_top must be at most {num_layers}, the blocks of this model, got {strategy.reinit_top}"
        )
    with _said_of("strategy.unfreeze: " if given is not None else "strategy."):
        return UnfreezeSchedule.from_settings(num_layers, strategy.trainable_blocks, given)


def unfreeze_settings(section: UnfreezeSection) -> dict[str, Any]:
    """The section as `UnfreezeSchedule.from_settings` takes it: each value as the recipe holds it, defaults too."""
    given = {name: value for name, value in section if value is not None and name != "restore_best"}
    for name, trigger in (("plateau", Plateau), ("loss_below", LossBelow)):
        if name in given:
            given[name] = trigger(**{key: value for key, value in given[name] if value is not None})
    replaced = REPLACED_BY_LAYERS if "layers" in given else ()
    return {name: value for name, value in given.items() if name not in replaced}


def make_unfreeze_plan(schedule: UnfreezeSchedule, plan: LoopSettings) -> UnfreezePlan:
    """The schedule over the run. Raises: TrainingError: a phase begins after its end, or would never begin."""
    records = min(STEPS_BETWEEN_RECORDS, plan.evaluate_every, plan.checkpoint_every)
    how = {
        "evaluate": "make training.evaluate_every shorter or the run longer",
        "record": "make the run longer than 10 steps",
    }
    with _said_of("strategy.unfreeze: "):
        unfreeze_plan = UnfreezePlan(schedule, plan.total_steps, plan.steps_per_epoch)
        unfreeze_plan.require_signals(plan.evaluate_every, records, how)
    return unfreeze_plan


@contextmanager
def _said_of(place: str) -> Iterator[None]:
    try:
        yield
    except UnfreezeError as error:
        raise TrainingError(f"{place}{error}") from None


def make_optimizer(settings: OptimizerSection, model: torch.nn.Module, layer_map: LayerMap) -> torch.optim.Optimizer:
    """The optimizer over all parameters, with a learning rate a layer.

    Raises:
        TrainingError: lion without its package.
    """
    momentum = 0.9 if settings.name == "sgd" and settings.momentum is None else settings.momentum
    given = {"betas": settings.betas, "eps": settings.eps, "momentum": momentum}
    return build_optimizer(
        model,
        lr=settings.lr,
        layer_decay=settings.layer_decay,
        head_lr=settings.head_lr,
        weight_decay=settings.weight_decay,
        convention=settings.convention,
        layer_map=layer_map,
        optimizer_class=optimizer_class(settings.name),
        **{key: value for key, value in given.items() if value is not None},
    )


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """`adamw`, `adafactor`, `sgd` or `lion` as a class.

    Adafactor: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235. Lion: Chen et al. 2023,
    https://arxiv.org/abs/2302.06675, from the package lion-pytorch.

    Raises:
        TrainingError: lion without its package.
    """
    if name == "lion":
        try:
            from lion_pytorch import Lion
        except ImportError:
            raise TrainingError("optimizer.name: lion needs its package; try: pip install lion-pytorch") from None
        lion: type[torch.optim.Optimizer] = Lion
        return lion
    return {"adamw": torch.optim.AdamW, "adafactor": torch.optim.Adafactor, "sgd": torch.optim.SGD}[name]


def make_effective_batches(recipe: Recipe, task: Task, num_processes: int) -> EffectiveBatches:
    """Which rows make which batch: by tokens where the recipe says how many, else by rows."""
    training = recipe.training
    accumulation = training.gradient_accumulation_steps
    if training.max_tokens_per_batch is not None:
        return TokenBatches(training.max_tokens_per_batch, accumulation, num_processes)
    return RowBatches(training.per_device_batch_size, accumulation, num_processes, task.group_by_length, task.drop_last)


def make_stream(recipe: Recipe, task: Task, accelerator: Accelerator) -> EpochStream:
    """The training batches of this process."""
    return EpochStream(
        encoded=task.data.encoded["train"],
        lengths=task.data.lengths("train"),
        collator=task.collator(training=True),
        batches=make_effective_batches(recipe, task, accelerator.num_processes),
        process_index=accelerator.process_index,
        seed=recipe.seed,
        num_workers=task.num_workers,
    )


def plan_steps(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> LoopSettings:
    """Durations as optimizer steps."""
    training, unfreeze = recipe.training, recipe.strategy.unfreeze
    stopping = training.early_stopping
    return LoopSettings(
        total_steps=training.duration.steps(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        evaluate_every=training.evaluate_every.steps(steps_per_epoch),
        checkpoint_every=training.checkpoint_every.steps(steps_per_epoch),
        max_grad_norm=training.max_grad_norm,
        seed=recipe.seed,
        metric=training.metric if has_validation else None,
        patience=stopping.patience if stopping else None,
        min_delta=stopping.min_delta if stopping else 0.0,
        restore_best_of_phase=unfreeze is not None and unfreeze.restore_best,
    )


def make_lr_schedule(settings: ScheduleSection, plan: LoopSettings) -> Callable[[int], LrSchedule]:
    """Makes the factor on the rates at each step of the run, or of a phase of so many steps.

    Raises:
        TrainingError: the warm-up is longer than the run.
    """
    warmup = settings.warmup.steps(plan.steps_per_epoch, plan.total_steps)
    if warmup > plan.total_steps:
        raise TrainingError(
            f"schedule.warmup must last 0 to {plan.total_steps} steps (the whole run), got {warmup} ({settings.warmup})"
        )

    def over(steps: int) -> LrSchedule:
        warmup = settings.warmup.steps(plan.steps_per_epoch, steps)
        return build_lr_schedule(settings.name, steps, min(warmup, steps), settings.ratio)

    return over


def tracker_config(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b` -> value, which every tracker can show."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= tracker_config(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
