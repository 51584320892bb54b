"""The one place where a recipe becomes the objects of a run: model, batches, step counts, optimizer, unfreezer.

Training, `validate`, `layers` and `audit` all come here, so that they see the same run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from nlp_ft import layerwise
from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import EpochStream
from nlp_ft.data.batch_sampling import EffectiveBatches, RowBatches, TokenBatches
from nlp_ft.errors import TrainingError, UnfreezeError
from nlp_ft.layerwise import LayerMap, LrSchedule, UnfreezePlan, Unfreezer, UnfreezeSchedule
from nlp_ft.layerwise.freezing import set_trainable_layers, unused_parameters
from nlp_ft.models.reinit import reinit_top
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.sections import OptimizerSection, ScheduleSection
from nlp_ft.recipe.strategy import REPLACED_BY_LAYERS, StrategySection, UnfreezeSection
from nlp_ft.tasks.task import Task
from nlp_ft.training.evaluation import Evaluator
from nlp_ft.training.loop import STEPS_BETWEEN_RECORDS
from nlp_ft.training.loop_state import LoopSettings

EXAMPLE_ROWS = 3


@dataclass(frozen=True)
class LayeredModel:
    """A model whose layers are known, frozen as in the first phase of its schedule."""

    model: PreTrainedModel
    layer_map: LayerMap
    schedule: UnfreezeSchedule
    unused: Sequence[str]
    """Parameters that no forward pass reads; they stay frozen."""


def layered_model(
    recipe: Recipe,
    task: Task,
    label_names: Sequence[str],
    example: Mapping[str, torch.Tensor] | None = None,
    *,
    pretrained: bool = True,
) -> LayeredModel:
    """The model of the recipe, mapped and frozen.

    Args:
        recipe: says which model and which strategy.
        task: builds the model.
        label_names: in the order of their ids.
        example: inputs of a forward pass, which finds parameters that are never used; None leaves these to train.
        pretrained: False builds the structure alone, on whichever device is the default.

    Raises:
        NlpFtError: the model cannot be loaded or mapped, or the strategy asks for layers that it does not have.
    """
    model = task.build_model(label_names, pretrained)
    layer_map = task.map_layers(model)
    schedule = unfreeze_schedule(recipe.strategy, layer_map.num_layers)
    if recipe.strategy.reinit_top and pretrained:
        reinit_top(model, task.build_model(label_names, False), layer_map, recipe.strategy.reinit_top)
    unused = () if example is None else unused_parameters(model, example)
    set_trainable_layers(model, layer_map, schedule.phases[0].layers, unused)
    return LayeredModel(model, layer_map, schedule, unused)


def structure(recipe: Recipe, task: Task, label_names: Sequence[str]) -> LayeredModel:
    """As `layered_model`, without weights: on the meta device. Raises: NlpFtError."""
    with torch.device("meta"):
        return layered_model(recipe, task, label_names, pretrained=False)


def example_inputs(task: Task) -> dict[str, torch.Tensor]:
    """Inputs of a few rows of train; of unlike length, so that there is padding."""
    order = task.data.lengths("train").argsort()
    rows = sorted({int(order[int(i * (len(order) - 1) / (EXAMPLE_ROWS - 1))]) for i in range(EXAMPLE_ROWS)})
    return model_inputs(task.collator(training=False)([task.data.encoded["train"][row] for row in rows]))


def stream(recipe: Recipe, task: Task, accelerator: Accelerator) -> EpochStream:
    """The training batches of this process."""
    return EpochStream(
        encoded=task.data.encoded["train"],
        lengths=task.data.lengths("train"),
        collator=task.collator(training=True),
        batches=effective_batches(recipe, task, accelerator.num_processes),
        process_index=accelerator.process_index,
        seed=recipe.seed,
        num_workers=task.num_workers,
    )


def effective_batches(recipe: Recipe, task: Task, num_processes: int) -> EffectiveBatches:
    """Which rows form which batch: counted in tokens where the recipe gives their number, else in rows."""
    training = recipe.training
    accumulation = training.gradient_accumulation_steps
    if training.max_tokens_per_batch is not None:
        return TokenBatches(training.max_tokens_per_batch, accumulation, num_processes)
    return RowBatches(training.per_device_batch_size, accumulation, num_processes, task.group_by_length, task.drop_last)


def loop_settings(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> LoopSettings:
    """The durations of the recipe in optimizer steps, and the limits of the loop."""
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


def optimizer(section: OptimizerSection, model: torch.nn.Module, layer_map: LayerMap) -> torch.optim.Optimizer:
    """The optimizer over all parameters, with a learning rate for each layer.

    Raises:
        TrainingError: lion without its package.
    """
    momentum = 0.9 if section.name == "sgd" and section.momentum is None else section.momentum
    given = {"betas": section.betas, "eps": section.eps, "momentum": momentum}
    return layerwise.build_optimizer(
        model,
        lr=section.lr,
        layer_decay=section.layer_decay,
        head_lr=section.head_lr,
        weight_decay=section.weight_decay,
        convention=section.convention,
        layer_map=layer_map,
        optimizer_class=optimizer_class(section.name),
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


def unfreezer(
    recipe: Recipe, layered: LayeredModel, optimizer: torch.optim.Optimizer, settings: LoopSettings
) -> Unfreezer:
    """What says at each step which layers train, and at which rates. Raises: TrainingError."""
    return Unfreezer(
        layered.model,
        optimizer,
        unfreeze_plan(layered.schedule, settings),
        layered.layer_map,
        lr_schedule(recipe.schedule, settings),
        layered.unused,
    )


def evaluator(recipe: Recipe, task: Task, model: torch.nn.Module, accelerator: Accelerator) -> Evaluator:
    """What predicts whole splits with the model."""
    return Evaluator(
        accelerator,
        model,
        task.outputs,
        task.data,
        task.collator(training=False),
        recipe.training.eval_batch_size,
        task.num_workers,
    )


def unfreeze_schedule(strategy: StrategySection, num_layers: int) -> UnfreezeSchedule:
    """Which layers train when, in a model of `num_layers` blocks.

    Raises:
        TrainingError: the strategy asks for more blocks than there are, or for layers that do not exist.
    """
    given = None if strategy.unfreeze is None else unfreeze_settings(strategy.unfreeze)
    if strategy.reinit_top > num_layers:
        raise TrainingError(
            f"strategy.reinit_top must be at most {num_layers}, the blocks of this model, got {strategy.reinit_top}"
        )
    with _naming("strategy.unfreeze: " if given is not None else "strategy."):
        return UnfreezeSchedule.from_settings(num_layers, strategy.trainable_blocks, given)


def unfreeze_settings(section: UnfreezeSection) -> dict[str, Any]:
    """The section as `UnfreezeSchedule.from_settings` takes it: each value as the recipe holds it, defaults too."""
    given = {name: value for name, value in section if value is not None and name != "restore_best"}
    for name, trigger in (("plateau", layerwise.Plateau), ("loss_below", layerwise.LossBelow)):
        if name in given:
            given[name] = trigger(**{key: value for key, value in given[name] if value is not None})
    replaced = REPLACED_BY_LAYERS if "layers" in given else ()
    return {name: value for name, value in given.items() if name not in replaced}


def unfreeze_plan(schedule: UnfreezeSchedule, settings: LoopSettings) -> UnfreezePlan:
    """The schedule over the run. Raises: TrainingError: a phase begins after its end, or would never begin."""
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
    """Makes the factor on the rates at each step, of the run or of a phase with the given number of steps.

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
        return layerwise.build_lr_schedule(section.name, steps, min(warmup, steps), section.ratio)

    return over


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Name the place in the recipe of what the core refuses. Raises: TrainingError."""
    try:
        yield
    except UnfreezeError as error:
        raise TrainingError(f"{place}{error}") from None
