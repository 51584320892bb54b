"""Reads the TrainingArguments of a Hugging Face Trainer for unfreezing: refused set-ups, schedule, evaluations."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader
from transformers import SchedulerType, TrainerState, TrainingArguments, get_scheduler

from nlp_ft.errors import UnfreezeError
from nlp_ft.integrations.strategy import changes, freezes
from nlp_ft.layerwise import LrSchedule, UnfreezeSchedule

CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)
"""Name of the setting for gradient checkpointing in this version of Transformers."""
HOW_TO_SIGNAL = {
    "evaluate": 'set eval_strategy="epoch", or "steps" with a smaller eval_steps, and no eval_delay',
    "record": 'set logging_strategy="steps" with a smaller logging_steps',
}
"""Advice on TrainingArguments for a phase that waits for an evaluation or a training loss that never comes."""


def refuse_setup(args: TrainingArguments, distributed: DistributedType, schedule: UnfreezeSchedule) -> None:
    """Refuse a set-up of the Trainer that would silently go wrong, or that is untested.

    Args:
        args: the Trainer's arguments.
        distributed: how the model is distributed over processes.
        schedule: which layers train when.

    Raises:
        UnfreezeError: the set-up is refused; the message says why and what to do.
    """
    if not freezes(schedule):
        return
    if distributed == DistributedType.DEEPSPEED:
        raise UnfreezeError(
            "DeepSpeed distributes gradients and optimizer states by what is trainable when it starts, and cannot "
            "change that; train without it, or with a strategy that trains everything (full, llrd, discriminative)"
        )
    if distributed == DistributedType.FSDP or args.parallelism_config is not None:
        raise UnfreezeError(
            "frozen layers in a sharded model (FSDP, tensor or context parallel) are untested in the Trainer; train "
            "with torchrun without sharding, or with a strategy that trains everything (full, llrd, discriminative)"
        )
    if changes(schedule) and args.ddp_static_graph:
        raise UnfreezeError("ddp_static_graph=True needs a constant graph, but unfreezing changes it; leave it out")
    if changes(schedule) and args.world_size > 1 and args.ddp_find_unused_parameters is False:
        raise UnfreezeError(
            "ddp_find_unused_parameters=False makes DistributedDataParallel wait for the gradients of frozen layers; "
            "leave it out, or set it to True"
        )


def schedule_of(args: TrainingArguments) -> Callable[[int], LrSchedule]:
    """Make the learning-rate schedule of TrainingArguments for any number of steps.

    Returns:
        A function that maps a number of steps to a schedule over these steps. It raises `UnfreezeError` if the schedule
        is not a function of the step alone.
    """
    options = args.lr_scheduler_kwargs if isinstance(args.lr_scheduler_kwargs, dict) else None

    @cache
    def over(num_steps: int) -> LrSchedule:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
        scheduler = get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.get_warmup_steps(num_steps),
            num_training_steps=num_steps,
            scheduler_specific_kwargs=options,
        )
        lambdas = getattr(scheduler, "lr_lambdas", None)
        if lambdas is None:
            raise UnfreezeError(
                f"this strategy moves the rates, so it needs a schedule that is a function of the step, such as "
                f"linear or cosine; lr_scheduler_type is {SchedulerType(args.lr_scheduler_type).value}"
            )
        factor: LrSchedule = lambdas[0]
        return factor

    return over


def signals_of(args: TrainingArguments, state: TrainerState, per_epoch: int) -> tuple[int | None, int | None]:
    """Count the optimizer steps between evaluations, and between records of the training loss.

    Args:
        args: the Trainer's arguments.
        state: the Trainer's state, which holds the intervals in steps.
        per_epoch: optimizer steps of an epoch.

    Returns:
        Both numbers of steps; None if there are no evaluations or no records.
    """

    def every(strategy: str, steps: float | None) -> int | None:
        lengths = {"epoch": per_epoch, "steps": max(1, int(steps or 1))}
        return lengths.get(strategy)

    records = [every(args.logging_strategy, state.logging_steps), every(args.save_strategy, state.save_steps)]
    # The loss is also recorded before each checkpoint.
    found = [length for length in records if length is not None] if records[0] is not None else []
    return every(args.eval_strategy, state.eval_steps), min(found, default=None)


def first_evaluation(args: TrainingArguments, per_epoch: int) -> int:
    """Return the step before which there is no evaluation; `eval_delay` counts in the unit of `eval_strategy`."""
    return math.ceil((args.eval_delay or 0) * (per_epoch if args.eval_strategy == "epoch" else 1))


def steps_per_epoch(args: TrainingArguments, batches: DataLoader[Any], total_steps: int) -> int:
    """Count the optimizer steps of an epoch as the Trainer does.

    Args:
        args: the Trainer's arguments.
        batches: the loader of the training batches.
        total_steps: optimizer steps of the run; the result if the length of the data is unknown.
    """
    try:
        num_batches = len(batches)
    except TypeError:
        return total_steps
    return max(1, -(-num_batches // args.gradient_accumulation_steps))
