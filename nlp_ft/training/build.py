"""Builds the objects of a run from its recipe: `run_parts` all of them, in their order, the other functions one each.

Training, `validate`, `layers`, `audit`, `compare` and `advise` build them here, so that they see the same run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import EpochStream
from nlp_ft.data.batch_sampling import EffectiveBatches, RowBatches, TokenBatches
from nlp_ft.errors import TrainingError
from nlp_ft.layerwise import LayerMap, Unfreezer, UnfreezeSchedule, build_optimizer
from nlp_ft.layerwise.freezing import set_trainable_layers, unused_parameters
from nlp_ft.layerwise.param_groups import head_lr_ratio
from nlp_ft.models.lora import Adapters, add_adapters
from nlp_ft.models.reinit import reinit_top
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.derived import (
    Derived,
    derive_batch,
    derive_lengths,
    derive_rates,
    derive_threshold,
    filled,
    trains_head_alone,
)
from nlp_ft.recipe.sections import OptimizerSection
from nlp_ft.tasks.registry import task_of
from nlp_ft.tasks.task import Task
from nlp_ft.training.evaluation import Evaluator
from nlp_ft.training.loop_state import LoopSettings
from nlp_ft.training.schedules import lr_schedule, unfreeze_plan, unfreeze_schedule
from nlp_ft.training.sharding import placed

EXAMPLE_ROWS = 3


@dataclass(frozen=True)
class LayeredModel:
    """A model with its layer map; the layers that do not train in the first phase are frozen."""

    model: PreTrainedModel
    layer_map: LayerMap
    schedule: UnfreezeSchedule
    unused: Sequence[str]
    """Parameters that no forward pass reads; they stay frozen."""
    adapters: Adapters | None = None
    """The adapters of strategy lora."""

    @property
    def frozen(self) -> Sequence[str]:
        """The parameters that never train, in whatever layer they are."""
        return (*self.unused, *(() if self.adapters is None else self.adapters.frozen))


@dataclass(frozen=True)
class RunParts:
    """The objects of a run before its first step."""

    recipe: Recipe
    """The settings, the derived ones among them."""
    derived: Sequence[Derived]
    task: Task
    report: dict[str, Any]
    """What the task says of the data."""
    layered: LayeredModel
    stream: EpochStream
    settings: LoopSettings
    optimizer: torch.optim.Optimizer
    unfreezer: Unfreezer
    evaluator: Evaluator

    @property
    def model(self) -> PreTrainedModel:
        """The model, on the device of its process and without wrappers."""
        return self.layered.model


def run_parts(recipe: Recipe, accelerator: Accelerator) -> RunParts:
    """Build the objects of a run; collective. Raises: NlpFtError: data or model cannot be used as the recipe says."""
    task = task_of(recipe)
    with accelerator.main_process_first():
        data = task.data
    report, example = task.describe_data(), example_inputs(task)
    layered = layered_model(recipe, task, data.label_names, example)
    placed(layered.model, layered.layer_map, example, accelerator)
    recipe, derived = with_derived(recipe, task, layered, data.lengths("train"), accelerator.num_processes)
    batches = stream(recipe, task, accelerator)
    settings = loop_settings(recipe, batches.steps_per_epoch, "validation" in data.encoded)
    built = optimizer(recipe.optimizer, layered.model, layered.layer_map)
    scorer = evaluator(recipe, task, layered.model, accelerator)
    unfreezing = unfreezer(recipe, layered, built, settings)
    return RunParts(recipe, derived, task, report, layered, batches, settings, built, unfreezing, scorer)


def layered_model(
    recipe: Recipe,
    task: Task,
    label_names: Sequence[str],
    example: Mapping[str, torch.Tensor] | None = None,
    *,
    pretrained: bool = True,
) -> LayeredModel:
    """Build the model of the recipe, map its layers, and freeze those that do not train at first.

    Args:
        recipe: the recipe, with the model and the strategy.
        task: the task of the recipe, which builds the model.
        label_names: label names in the order of their ids.
        example: inputs for a forward pass that finds parameters which are never used, to freeze them; None skips this.
        pretrained: whether to load the weights; False builds the structure alone, on the default device.

    Raises:
        NlpFtError: the model cannot be loaded or mapped, or the strategy asks for layers that it does not have.
    """
    model = task.build_model(label_names, pretrained)
    layer_map = task.map_layers(model)
    schedule = unfreeze_schedule(recipe.strategy, layer_map.num_layers)
    if recipe.strategy.reinit_top and pretrained:
        reinit_top(model, task.build_model(label_names, False), layer_map, recipe.strategy.reinit_top)
    adapters = None
    if recipe.strategy.lora is not None:
        blocks = recipe.strategy.trainable_blocks
        adapters = add_adapters(model, recipe.strategy.lora, layer_map, blocks, recipe.model.name)
        layer_map = task.map_layers(model)
        schedule = UnfreezeSchedule.fixed(layer_map.num_layers, layer_map.head_layer - adapters.lowest_layer)
    unused = () if example is None else unused_parameters(model, example)
    layered = LayeredModel(model, layer_map, schedule, unused, adapters)
    set_trainable_layers(model, layer_map, schedule.phases[0].layers, layered.frozen)
    return layered


def structure(recipe: Recipe, task: Task, label_names: Sequence[str]) -> LayeredModel:
    """Build the `layered_model` on the meta device, without loading weights. Raises: NlpFtError."""
    with torch.device("meta"):
        return layered_model(recipe, task, label_names, pretrained=False)


def example_inputs(task: Task) -> dict[str, torch.Tensor]:
    """Make inputs of a few rows of train, of different lengths, so that there is padding."""
    order = task.data.lengths("train").argsort()
    rows = sorted({int(order[int(i * (len(order) - 1) / (EXAMPLE_ROWS - 1))]) for i in range(EXAMPLE_ROWS)})
    return model_inputs(task.collator(training=False)([task.data.encoded["train"][row] for row in rows]))


def with_derived(
    recipe: Recipe, task: Task, layered: LayeredModel, lengths: np.ndarray, num_processes: int
) -> tuple[Recipe, list[Derived]]:
    """Derive the settings that the recipe leaves out; return the recipe with them, and each with its reason.

    Args:
        recipe: the recipe.
        task: its task.
        layered: its model, whose width and head decide on the rates.
        lengths: tokens of each row of train, (rows,); zeros where batches count rows.
        num_processes: number of processes that share an effective batch.
    """
    rates = _rates(recipe, task, layered)
    recipe, derived = with_lengths(filled(recipe, rates), task, lengths, num_processes)
    # A probe takes no steps, so what is derived for them is not worth a word.
    return recipe, [] if recipe.strategy.probe is not None else rates + derived


def with_lengths(recipe: Recipe, task: Task, lengths: np.ndarray, num_processes: int) -> tuple[Recipe, list[Derived]]:
    """Derive batch size, duration and the times between evaluations; see `with_derived`."""
    derived = derive_batch(recipe, len(lengths))
    recipe = filled(recipe, derived)
    steps_per_epoch = effective_batches(recipe, task, num_processes).steps_per_epoch(lengths)
    derived += derive_lengths(recipe, steps_per_epoch) + derive_threshold(recipe)
    return filled(recipe, derived), derived


def with_rates(recipe: Recipe, task: Task, layered: LayeredModel) -> Recipe:
    """Derive the learning rates alone, which need no data."""
    return filled(recipe, _rates(recipe, task, layered))


def _rates(recipe: Recipe, task: Task, layered: LayeredModel) -> list[Derived]:
    ratio = head_lr_ratio(layered.model, layered.layer_map, trains_alone=trains_head_alone(recipe))
    return derive_rates(recipe, task.hidden_size(layered.model), ratio)


def stream(recipe: Recipe, task: Task, accelerator: Accelerator) -> EpochStream:
    """Make the training batches of this process."""
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
    """Decide which rows form which batch: by tokens if the recipe gives their number, else by rows."""
    training = recipe.training
    accumulation = training.gradient_accumulation_steps
    if training.max_tokens_per_batch is not None:
        return TokenBatches(training.max_tokens_per_batch, accumulation, num_processes)
    assert training.per_device_batch_size is not None  # see with_derived
    return RowBatches(training.per_device_batch_size, accumulation, num_processes, task.group_by_length, task.drop_last)


def loop_settings(recipe: Recipe, steps_per_epoch: int, has_validation: bool) -> LoopSettings:
    """Convert the durations of a recipe with derived settings into optimizer steps, and collect the loop's limits."""
    training, unfreeze = recipe.training, recipe.strategy.unfreeze
    assert training.duration is not None
    assert training.evaluate_every is not None
    assert training.checkpoint_every is not None
    stopping = training.early_stopping
    return LoopSettings(
        total_steps=training.duration.steps(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        evaluate_every=training.evaluate_every.steps(steps_per_epoch),
        checkpoint_every=training.checkpoint_every.steps(steps_per_epoch),
        max_grad_norm=training.max_grad_norm,
        seed=recipe.seed,
        # A probe is solved, and has no steps to choose from.
        metric=training.metric if has_validation and recipe.strategy.probe is None else None,
        patience=stopping.patience if stopping else None,
        min_delta=stopping.min_delta if stopping else 0.0,
        restore_best_of_phase=unfreeze is not None and unfreeze.restore_best,
    )


def optimizer(section: OptimizerSection, model: torch.nn.Module, layer_map: LayerMap) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters, with a learning rate for each layer.

    Raises:
        TrainingError: the package of lion is not installed.
    """
    assert section.lr is not None  # see with_derived and with_rates
    momentum = 0.9 if section.name == "sgd" and section.momentum is None else section.momentum
    given = {"betas": section.betas, "eps": section.eps, "momentum": momentum}
    return build_optimizer(
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
    """Find the class of `adamw`, `adafactor`, `sgd` or `lion`.

    Adafactor: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235. Lion: Chen et al. 2023,
    https://arxiv.org/abs/2302.06675, from the package lion-pytorch.

    Raises:
        TrainingError: the package of lion is not installed.
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
    """Make the object that decides at each step which layers train, and at which rates. Raises: TrainingError."""
    return Unfreezer(
        layered.model,
        optimizer,
        unfreeze_plan(layered.schedule, settings),
        layered.layer_map,
        lr_schedule(recipe.schedule, settings),
        layered.frozen,
    )


def evaluator(recipe: Recipe, task: Task, model: torch.nn.Module, accelerator: Accelerator) -> Evaluator:
    """Make the object that predicts whole splits with the model."""
    return Evaluator(
        accelerator,
        model,
        task.outputs,
        task.data,
        task.collator(training=False),
        recipe.training.eval_batch_size,
        task.num_workers,
    )
