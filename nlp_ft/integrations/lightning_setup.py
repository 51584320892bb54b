"""Reads the Trainer of Lightning for unfreezing: refused set-ups, and the steps between evaluations."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from nlp_ft.errors import UnfreezeError
from nlp_ft.integrations.strategy import changes, freezes
from nlp_ft.layerwise import LossBelow, UnfreezeSchedule
from nlp_ft.layerwise.modes import keeps_statistics

HOW_TO_SIGNAL = {
    "evaluate": "give the Trainer a validation loader and a smaller val_check_interval or check_val_every_n_epoch",
    "record": "take a plateau",
}
"""Advice for a phase that waits for an evaluation or a training loss that never comes."""


def refuse_setup(trainer: Trainer, module: LightningModule, schedule: UnfreezeSchedule, sets_rates: bool) -> None:
    """Refuse a set-up of Lightning that would silently go wrong, or that is untested.

    Args:
        trainer: the Trainer.
        module: the module that it trains.
        schedule: which layers train when.
        sets_rates: whether a learning-rate schedule is laid over the run.

    Raises:
        UnfreezeError: the set-up is refused; the message says why and what to do.
    """
    if (changes(schedule) or sets_rates) and not module.automatic_optimization:
        raise UnfreezeError(
            "under manual optimization Lightning does not know how many updates the run has, by which phases and rates "
            "are counted; take automatic optimization, or an Unfreezer in your training_step"
        )
    if any(isinstance(phase.start, LossBelow) for phase in schedule.phases):
        raise UnfreezeError("loss_below is not available in Lightning, which keeps no mean of the loss; use a plateau")
    strategy: Any = trainer.strategy
    is_ddp = type(strategy) is DDPStrategy
    if freezes(schedule) and not is_ddp and not isinstance(strategy, SingleDeviceStrategy):
        raise UnfreezeError(
            f"frozen layers under {type(strategy).__name__} are untested: sharded models distribute gradients and "
            'states by what is trainable when they start; use strategy="ddp"'
        )
    if changes(schedule) and is_ddp and strategy._ddp_kwargs.get("static_graph"):
        raise UnfreezeError("static_graph=True needs a constant graph, but unfreezing changes it; leave it out")
    if changes(schedule) and getattr(module, "_compiler_ctx", None) is not None:
        raise UnfreezeError(
            "a compiled module may reuse the graph of frozen layers after they unfreeze; do not compile it"
        )
    # Lightning sets them at run time, where types do not see them.
    averages = any(isinstance(callback, StochasticWeightAveraging) for callback in getattr(trainer, "callbacks", ()))
    is_frozen_at_end = len(schedule.phases[-1].layers) < schedule.num_layers + 2
    if averages and is_frozen_at_end and any(map(keeps_statistics, module.modules())):
        raise UnfreezeError(
            "StochasticWeightAveraging clears running statistics, and frozen layers gather none; use WeightAveraging"
        )


def steps_between_evaluations(trainer: Trainer, per_epoch: int) -> int | None:
    """Count the optimizer steps between evaluations; None if there are none.

    Args:
        trainer: the Trainer, whose fit has begun.
        per_epoch: optimizer steps of an epoch.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    if not (trainer.enable_validation and loop._data_source.is_defined()):
        return None
    batches = trainer.val_check_batch
    if batches is not None and batches < trainer.num_training_batches:
        return math.ceil(batches / trainer.accumulate_grad_batches)
    return per_epoch * (trainer.check_val_every_n_epoch or 1)
